// What browsers give and Node 20 lacks: `navigator`, and WebGPU's names.

interface DawnModule {
  create(flags: string[]): GPU;
  readonly globals: Readonly<Record<string, unknown>>;
}

/** A `navigator` for libraries that ask it for the number of cores or the GPU. */
export function setNavigator(fields: { readonly hardwareConcurrency: number; readonly gpu?: GPU }): void {
  Object.defineProperty(globalThis, "navigator", { value: { userAgent: "Node", ...fields }, configurable: true });
}

/**
 * Puts Dawn's WebGPU in place, on the adapter that the environment's Vulkan driver gives (VK_DRIVER_FILES). Call it before the library is
 * imported. Returns the adapter's name, or why there is none.
 */
export async function setWebGpu(threads: number): Promise<{ readonly adapter: string } | { readonly skipped: string }> {
  let dawn: DawnModule;
  try {
    dawn = (await import("webgpu")) as DawnModule;
  } catch (error) {
    return { skipped: `the package webgpu does not load: ${error instanceof Error ? error.message : String(error)}` };
  }
  Object.assign(globalThis, dawn.globals);
  const gpu = dawn.create([]);
  const adapter = await gpu.requestAdapter();
  if (!adapter) return { skipped: "Dawn finds no WebGPU adapter" };
  setNavigator({ hardwareConcurrency: threads, gpu });
  return { adapter: adapter.info.description || adapter.info.vendor };
}
