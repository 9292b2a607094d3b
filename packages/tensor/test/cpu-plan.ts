import type { Backend } from "../src/backends/backend.js";
import type { Kernel, Plan } from "../src/kernels/kernel.js";
import { type DType, decode, dtypeBytes, encode } from "../src/tensor/dtype.js";

export interface TestSlot {
  readonly dtype: DType;
  readonly values: readonly number[];
}

/** A plan of some kernels in which every slot is a bound buffer. */
export function boundPlan(kernels: readonly Kernel[], slots: readonly TestSlot[]): Plan {
  return {
    slots: slots.map(({ dtype, values }, binding) => ({
      kind: "bound",
      dtype,
      elementCount: values.length,
      bytes: values.length * dtypeBytes[dtype],
      binding,
    })),
    kernels,
    names: kernels.map((kernel) => kernel.kind),
    bindingCount: slots.length,
    arenaBytes: 0,
  };
}

/** Runs kernels over slots and returns what the slots then hold. */
export async function runKernels(backend: Backend, kernels: readonly Kernel[], slots: readonly TestSlot[]): Promise<number[][]> {
  const plan = boundPlan(kernels, slots);
  const executable = backend.prepare(plan);
  const buffers = slots.map(({ dtype, values }) => {
    const buffer = backend.allocate(values.length * dtypeBytes[dtype]);
    backend.write(buffer, encode(values, dtype));
    return buffer;
  });
  backend.run(executable, buffers);
  const results: number[][] = [];
  for (const [i, buffer] of buffers.entries()) {
    const slot = slots[i];
    if (slot) results.push(Array.from(decode(await backend.read(buffer, slot.values.length * dtypeBytes[slot.dtype]), slot.dtype)));
  }
  for (const buffer of buffers) backend.free(buffer);
  executable.dispose();
  return results;
}
