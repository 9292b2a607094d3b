import type { Device } from "@lowrank/tensor";
import { adapterBandwidth, type Bandwidth, wasmBandwidth } from "./bandwidth.js";
import { adapterPeak, type Peak, wasmPeak } from "./peak.js";

/** What a machine or an adapter can do at most, as measured here. */
export interface Roofline {
  readonly peak: Peak;
  readonly bandwidth: Bandwidth;
}

/** The roofline of a device: WebAssembly SIMD on `threads` threads, or a WebGPU adapter. */
export async function measureRoofline(device: Device, threads: number): Promise<Roofline> {
  if (device.name === "webgpu") return { peak: await adapterPeak(device), bandwidth: await adapterBandwidth(device) };
  return { peak: await wasmPeak(threads), bandwidth: await wasmBandwidth(threads) };
}
