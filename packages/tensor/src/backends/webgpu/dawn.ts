import { DeviceError } from "../../tensor/errors.js";

interface DawnModule {
  create(flags: string[]): GPU;
}

// Devices die when the instance that made them is collected, so instances live as long as the process.
const instances = new Map<string, Promise<GPU>>();

/**
 * The WebGPU of the npm package `webgpu` (Dawn), for Node. `flags` are Dawn's own, such as `backend=vulkan`.
 * Throws DeviceError when the package is absent or cannot be loaded here.
 */
export function loadDawn(flags: readonly string[] = []): Promise<GPU> {
  const key = flags.join(";");
  const known = instances.get(key);
  if (known) return known;
  const made = createDawn(flags);
  instances.set(key, made);
  made.catch(() => instances.delete(key));
  return made;
}

/** An instance of its own. It must be kept for as long as its devices are used. Throws as `loadDawn` does. */
export async function createDawn(flags: readonly string[] = []): Promise<GPU> {
  // A name that bundlers do not follow: the package is an optional peer.
  const name = "webgpu";
  let dawn: DawnModule;
  try {
    dawn = (await import(name)) as DawnModule;
  } catch (error) {
    const isAbsent = /Cannot find (package|module)/.test(String(error));
    throw new DeviceError(
      isAbsent
        ? "WebGPU in Node needs the package webgpu, which is not installed. Run npm install webgpu, or use device cpu."
        : `The package webgpu does not load here: ${String(error)}. Reinstall it for this platform, or use device cpu.`,
      "webgpu",
    );
  }
  return dawn.create([...flags]);
}
