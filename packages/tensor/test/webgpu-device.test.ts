import { DeviceLostError, tensor } from "@lowrank/tensor";
import { describe, expect, it } from "vitest";
import { Device } from "../src/graph/device.js";
import { planExecutor } from "../src/schedule/plan-executor.js";
import { hasWebgpu, openWebgpu } from "./webgpu-device.js";

describe.skipIf(!hasWebgpu())("a WebGPU device", () => {
  it("that is lost is a DeviceError with the remedy, from then on", async () => {
    const backend = await openWebgpu();
    const dev = new Device("webgpu", backend, planExecutor());
    const x = tensor([1, 2, 3], { device: dev });
    expect(await x.sum().item()).toBe(6);
    backend.device.destroy();
    await backend.device.lost;
    const read = async (): Promise<unknown> => x.mul(2).data();
    await expect(read()).rejects.toThrow(DeviceLostError);
    await expect(read()).rejects.toThrow(/device was lost: .*load from the last checkpoint/);
  });

  it("tells its kernels' times and its programs to whoever asks", async () => {
    const [kernels, programs]: [string[], string[]] = [[], []];
    const backend = await openWebgpu({
      onKernel: ({ name, ms }) => void (ms >= 0 && kernels.push(name)),
      onProgram: ({ name, code }) => void (code.includes("fn main") && programs.push(name)),
    });
    const dev = new Device("webgpu", backend, planExecutor());
    await tensor([1, 2, 3], { device: dev }).sum().item();
    expect(programs).toHaveLength(1);
    // SwiftShader has timestamps too; an adapter without them tells no times.
    expect(kernels).toEqual(backend.device.features.has("timestamp-query") ? programs : []);
    dev.dispose();
  });
});
