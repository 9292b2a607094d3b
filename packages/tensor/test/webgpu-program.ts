import { usage } from "../src/backends/webgpu/constants.js";
import type { WgslProgram } from "../src/kernels/wgsl/program.js";
import { decode, encode } from "../src/tensor/dtype.js";
import type { TestSlot } from "./cpu-plan.js";

/** Runs one program, so that tests can force a variant that the backend would not choose; returns what the slots then hold. */
export async function runProgram(device: GPUDevice, program: WgslProgram, slots: readonly TestSlot[]): Promise<number[][]> {
  const module = device.createShaderModule({ label: program.name, code: program.code });
  const pipeline = device.createComputePipeline({ label: program.name, layout: "auto", compute: { module, entryPoint: "main" } });
  const buffers = slots.map(({ dtype, values }) => {
    const bytes = encode(values, dtype);
    const size = Math.ceil(Math.max(bytes.byteLength, 16) / 16) * 16;
    const padded = new Uint8Array(size);
    padded.set(bytes);
    const buffer = device.createBuffer({ size, usage: usage.storage | usage.copySource | usage.copyTarget });
    device.queue.writeBuffer(buffer, 0, padded);
    return { buffer, size, byteLength: bytes.byteLength, dtype };
  });
  const entries = program.bindings.map(({ slot, offset, bytes }, binding) => ({
    binding,
    resource: { buffer: (buffers[slot] as { buffer: GPUBuffer }).buffer, offset, size: bytes },
  }));
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(...program.workgroups);
  pass.end();
  const results = buffers.map(({ buffer, size }) => {
    const staging = device.createBuffer({ size, usage: usage.mapRead | usage.copyTarget });
    encoder.copyBufferToBuffer(buffer, 0, staging, 0, size);
    return staging;
  });
  device.queue.submit([encoder.finish()]);
  const values: number[][] = [];
  for (const [i, staging] of results.entries()) {
    await staging.mapAsync(1);
    const { byteLength = 0, dtype = "f32" } = buffers[i] ?? {};
    values.push(Array.from(decode(new Uint8Array(staging.getMappedRange()).slice(0, byteLength), dtype)));
    staging.destroy();
  }
  for (const { buffer } of buffers) buffer.destroy();
  return values;
}
