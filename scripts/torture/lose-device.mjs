// Loaded before the command line (node --import): WebGPU's devices are destroyed as soon as the file that LOWRANK_TORTURE_LOSE names is there.
import { existsSync } from "node:fs";
import { globals } from "webgpu";

const file = process.env["LOWRANK_TORTURE_LOSE"] ?? "";
const { GPUAdapter } = /** @type {{ GPUAdapter: typeof globalThis.GPUAdapter }} */ (globals);
const { requestDevice } = GPUAdapter.prototype;
GPUAdapter.prototype.requestDevice = async function (/** @type {GPUDeviceDescriptor | undefined} */ descriptor) {
  const device = await requestDevice.call(this, descriptor);
  const timer = setInterval(() => {
    if (!existsSync(file)) return;
    clearInterval(timer);
    device.destroy();
  }, 1);
  timer.unref();
  return device;
};
