import { accessSync, constants, readdirSync } from "node:fs";
import { DeviceError } from "../../tensor/errors.js";
import { createDawn } from "../webgpu/dawn.js";
import { hasRealGpu } from "../webgpu/index.js";

let found: Promise<GPU | null> | undefined;

/**
 * WebGPU on a real GPU; null without Dawn or without such a GPU. Asked once.
 * Dawn writes warnings straight to stderr for each software driver that it looks at, so those drivers are not shown to it here, and where
 * the system has no graphics hardware it is not loaded at all.
 */
export function hardwareGpu(): Promise<GPU | null> {
  found ??= findHardware();
  return found;
}

async function findHardware(): Promise<GPU | null> {
  if (process.platform === "linux" && !hasGraphicsNode("/dev")) return null;
  try {
    const gpu = await createDawn();
    return (await withoutSoftwareDrivers(() => hasRealGpu(gpu))) ? gpu : null;
  } catch (error) {
    if (error instanceof DeviceError) return null;
    throw error;
  }
}

/** Device files of Linux through which every driver of a GPU computes: DRM, NVIDIA's own, WSL, Adreno and Mali. */
const graphicsNodes: readonly { readonly folder: string; readonly name: RegExp }[] = [
  { folder: "dri", name: /^renderD\d+$/ },
  { folder: "", name: /^(nvidia\d+|dxg|kgsl-3d\d+|mali\d+)$/ },
];

/** Whether a folder of device files has one of a GPU that this process may use. */
export function hasGraphicsNode(devices: string): boolean {
  return graphicsNodes.some(({ folder, name }) =>
    namesIn(`${devices}/${folder}`).some((file) => name.test(file) && isUsable(`${devices}/${folder}/${file}`)),
  );
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // no such folder: no GPU of this kind
  }
}

function isUsable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false; // of another user: drivers cannot open it either
  }
}

/** Read by the Vulkan loader, from 1.3.234 on, when an instance is made: driver files to leave out. */
const disabledDrivers = "VK_LOADER_DRIVERS_DISABLE";

/** Calls `use` while the Vulkan loader leaves lavapipe and SwiftShader out; Dawn looks at drivers before its first `await`. */
function withoutSoftwareDrivers<R>(use: () => R): R {
  const before = process.env[disabledDrivers];
  process.env[disabledDrivers] = [...(before ? [before] : []), "*lvp*", "*swiftshader*"].join(",");
  try {
    return use();
  } finally {
    if (before === undefined) delete process.env[disabledDrivers];
    else process.env[disabledDrivers] = before;
  }
}
