import { DeviceError } from "../../tensor/errors.js";

/** The parts of GPUAdapterInfo that say what an adapter is. */
export interface AdapterInfo {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  readonly isFallbackAdapter?: boolean;
  readonly subgroupMinSize?: number;
  readonly subgroupMaxSize?: number;
}

/** Lanes of every subgroup, or 0 where the adapter does not promise one size. */
export function subgroupSize({ subgroupMinSize = 0, subgroupMaxSize = 0 }: AdapterInfo): number {
  return subgroupMinSize === subgroupMaxSize ? subgroupMinSize : 0;
}

/** True when the adapter is a CPU in disguise (lavapipe, SwiftShader, WARP): our own cpu backend is faster than those. */
export function isSoftwareAdapter(info: AdapterInfo): boolean {
  const text = `${info.vendor} ${info.architecture} ${info.device} ${info.description}`.toLowerCase();
  return info.isFallbackAdapter === true || /llvmpipe|lavapipe|swiftshader|basic render|\bwarp\b|softpipe/.test(text);
}

/** What tells adapters apart whose kernels are tuned separately. */
export function adapterKey({ vendor, architecture, device, description }: AdapterInfo): string {
  return [vendor, architecture, device, description].filter(Boolean).join(", ");
}

/** One line about an adapter. */
export function describeAdapter(info: AdapterInfo): string {
  const name = info.description || info.device || [info.vendor, info.architecture].filter(Boolean).join(" ") || "unnamed adapter";
  return `${name}${isSoftwareAdapter(info) ? " (software)" : ""}`;
}

/**
 * The adapter to compute on: the first that the browser or Dawn offers whose name contains `wanted`.
 * Throws DeviceError that says what to install when there is none.
 */
export async function requestAdapter(gpu: GPU, wanted?: string): Promise<GPUAdapter> {
  const seen: string[] = [];
  for (const options of [
    { powerPreference: "high-performance" },
    { powerPreference: "low-power" },
    { forceFallbackAdapter: true },
    {},
  ] as const) {
    const adapter = await gpu.requestAdapter(options);
    if (!adapter) continue;
    const name = describeAdapter(adapter.info);
    if (wanted === undefined || matches(adapter.info, wanted)) return adapter;
    if (!seen.includes(name)) seen.push(name);
  }
  if (seen.length > 0) throw new DeviceError(`No WebGPU adapter is called "${wanted}". Found: ${seen.join("; ")}.`, "webgpu");
  throw new DeviceError(
    "WebGPU found no adapter. On Linux install a Vulkan driver (Debian, Ubuntu: mesa-vulkan-drivers, version 25 or newer) or name one in VK_DRIVER_FILES; in a browser turn WebGPU on; or use device cpu.",
    "webgpu",
  );
}

function matches(info: AdapterInfo, wanted: string): boolean {
  return `${info.vendor} ${info.architecture} ${info.device} ${info.description}`.toLowerCase().includes(wanted.toLowerCase());
}

const wantedLimits = [
  "maxStorageBufferBindingSize",
  "maxBufferSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
] as const satisfies readonly (keyof GPUSupportedLimits)[];

const wantedFeatures = ["timestamp-query", "subgroups"] as const satisfies readonly GPUFeatureName[];

/** Opens the adapter with the largest limits that it offers. Timestamps and subgroups where it has them. */
export async function requestDevice(adapter: GPUAdapter): Promise<GPUDevice> {
  const requiredLimits: Record<string, number> = {};
  for (const name of wantedLimits) requiredLimits[name] = adapter.limits[name];
  const requiredFeatures = wantedFeatures.filter((name) => adapter.features.has(name));
  try {
    return await adapter.requestDevice({ label: "lowrank", requiredLimits, requiredFeatures });
  } catch (error) {
    throw new DeviceError(
      `WebGPU adapter ${describeAdapter(adapter.info)} gave no device: ${String(error)}. Update its driver or use device cpu.`,
      "webgpu",
    );
  }
}
