import type { TunedClass, Tuning } from "../../graph/backend.js";
import type { Kernel, MatmulKernel, Plan, PlanSlot, Slot } from "../../kernels/kernel.js";
import { slotsOfOperand } from "../../kernels/products.js";
import { renamedKernel } from "../../kernels/slots.js";
import { matmulClass, modelledChoice } from "../../kernels/wgsl/choice.js";
import { type MatmulVariant, matmulVariants } from "../../kernels/wgsl/matmul.js";
import type { Target } from "../../kernels/wgsl/program.js";
import { sizeOf } from "../../tensor/shape.js";

/** A variant must take less than this share of the modelled one's time to replace it; the rest is noise. */
const leastGain = 0.95;
/** A variant that takes so many times longer than the fastest is not timed twice. */
const patience = 3;

/** A product as a plan of its own, and its class. */
interface Example {
  readonly name: string;
  readonly kernel: MatmulKernel;
  readonly plan: Plan;
}

/** Runs a plan of one product with a variant and resolves to its milliseconds; only roughly, where they are more than `enoughMs`. */
export type TimeVariant = (plan: Plan, variant: MatmulVariant, enoughMs: number) => Promise<number>;

/** The variants of an adapter's list among those that were saved, by class. Lists change from version to version. */
export function knownVariants({ matmul }: Tuning, target: Target): Map<string, MatmulVariant> {
  const variants = new Map(matmulVariants(target).map((variant) => [keyOf(variant), variant]));
  const known = new Map<string, MatmulVariant>();
  for (const [name, saved] of Object.entries(matmul)) {
    const variant = variants.get(keyOf(saved));
    if (variant) known.set(name, variant);
  }
  return known;
}

function keyOf({ tileRows, tileColumns, threadRows, threadColumns, left, isTransposed }: MatmulVariant): string {
  return [tileRows, tileColumns, threadRows, threadColumns, left, isTransposed].join();
}

/** Adds the fastest variant of each class of products in some plans to `known`; `onClass` is waited for after each. */
export async function tuneMatmuls(
  plans: readonly Plan[],
  target: Target,
  known: Map<string, MatmulVariant>,
  time: TimeVariant,
  onClass: (found: TunedClass) => Promise<void>,
): Promise<void> {
  const examples = examplesOf(plans, known);
  for (const [i, { name, kernel, plan }] of examples.entries()) {
    const modelled = modelledChoice.matmul(kernel, target, plan.slots);
    const modelledMs = await time(plan, modelled, Number.POSITIVE_INFINITY);
    let [variant, fastestMs] = [modelled, modelledMs];
    for (const other of matmulVariants(target)) {
      if (keyOf(other) === keyOf(modelled)) continue;
      const ms = await time(plan, other, fastestMs * patience);
      if (ms < Math.min(fastestMs, modelledMs * leastGain)) [variant, fastestMs] = [other, ms];
    }
    known.set(name, variant);
    await onClass({ name, modelledMs, fastestMs, variant, done: i + 1, count: examples.length });
  }
}

/** One product of each class that is not known, the largest. */
function examplesOf(plans: readonly Plan[], known: ReadonlyMap<string, MatmulVariant>): Example[] {
  const examples = new Map<string, Example>();
  const work = ({ batch, m, n, k }: MatmulKernel): number => sizeOf(batch) * m * n * k;
  const visit = (kernel: Kernel, slots: readonly PlanSlot[]): void => {
    if (kernel.kind === "group") for (const member of kernel.members) visit(member, slots);
    if (kernel.kind !== "matmul" || work(kernel) === 0) return;
    const name = matmulClass(kernel, slots);
    const other = examples.get(name);
    if (!known.has(name) && (!other || work(kernel) > work(other.kernel))) examples.set(name, { name, kernel, plan: alone(kernel, slots) });
  };
  for (const { kernels, slots } of plans) for (const kernel of kernels) visit(kernel, slots);
  return [...examples.values()];
}

/** A product without what becomes of it, over buffers of its own. */
function alone({ epilogue: _, ...kernel }: MatmulKernel, slots: readonly PlanSlot[]): Plan {
  const used = [...new Set([...slotsOfOperand(kernel.a), ...slotsOfOperand(kernel.b), kernel.out])];
  const at = (slot: Slot): Slot => used.indexOf(slot);
  return {
    slots: used.map((slot, binding) => {
      const { dtype, elementCount, bytes } = slots[slot] as PlanSlot;
      return { kind: "bound", dtype, elementCount, bytes, binding };
    }),
    kernels: [renamedKernel(kernel, at, at)],
    names: ["matmul"],
    bindingCount: used.length,
    arenaBytes: 0,
  };
}
