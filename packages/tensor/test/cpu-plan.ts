import type { Backend } from "../src/graph/backend.js";
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

/** A slot's bytes and the numbers that they hold, made once however many backends run on it. */
const stored = new WeakMap<TestSlot, { readonly bytes: Uint8Array; readonly numbers: number[] }>();

function storedOf(slot: TestSlot): { readonly bytes: Uint8Array; readonly numbers: number[] } {
  const known = stored.get(slot);
  if (known) return known;
  const bytes = encode(slot.values, slot.dtype);
  const made = { bytes, numbers: Array.from(decode(bytes, slot.dtype)) };
  stored.set(slot, made);
  return made;
}

/** Runs kernels over slots and returns what the slots then hold. */
export async function runKernels(backend: Backend, kernels: readonly Kernel[], slots: readonly TestSlot[]): Promise<number[][]> {
  const plan = boundPlan(kernels, slots);
  const executable = backend.prepare(plan);
  const buffers = slots.map((slot) => {
    const { dtype, values } = slot;
    const buffer = backend.allocate(values.length * dtypeBytes[dtype]);
    backend.write(buffer, storedOf(slot).bytes);
    return buffer;
  });
  backend.run(executable, buffers);
  const results: number[][] = [];
  for (const [i, buffer] of buffers.entries()) {
    const slot = slots[i];
    if (!slot) continue;
    const { bytes, numbers } = storedOf(slot);
    const now = await backend.read(buffer, bytes.length);
    const isUntouched = Buffer.compare(now, bytes) === 0;
    results.push(isUntouched ? numbers : Array.from(decode(now, slot.dtype)));
  }
  for (const buffer of buffers) backend.free(buffer);
  executable.dispose();
  return results;
}
