import { expressionsBelow } from "../kernels/expr.js";
import type { Kernel, Slot } from "../kernels/kernel.js";
import type { Draft } from "./build.js";
import { readsOf, writesOf } from "./liveness.js";
import { withSlots } from "./slots.js";
import { sameIndex } from "./space.js";

/**
 * A new value that is copied over an input at the end of the plan is computed there directly when its kernel is the last to read that
 * input and reads each element only where it writes it.
 */
export function updateInPlace({ kernels, slots }: Draft): Draft {
  const made: (Kernel | null)[] = [...kernels];
  const writers = new Map<Slot, number>();
  const touching = new Map<Slot, Set<number>>();
  const touch = (slot: Slot, step: number): void => {
    const steps = touching.get(slot);
    if (steps) steps.add(step);
    else touching.set(slot, new Set([step]));
  };
  for (const [step, kernel] of kernels.entries()) {
    for (const slot of writesOf(kernel)) {
      if (!writers.has(slot)) writers.set(slot, step);
      touch(slot, step);
    }
    for (const slot of readsOf(kernel)) touch(slot, step);
  }
  for (const step of kernels.keys()) {
    const copy = made[step];
    if (copy?.kind !== "copy" || slots[copy.to]?.binding === null || slots[copy.from]?.binding !== null) continue;
    const { from, to } = copy;
    const producer = writers.get(from) ?? -1;
    const kernel = made[producer];
    if (kernel?.kind !== "loop" || slots[from]?.dtype !== slots[to]?.dtype) continue;
    const touchesLater = [...(touching.get(to) ?? [])].some((other) => other !== step && other > producer);
    if (touchesLater || !readsOnlyWhereItWrites(kernel, to, from)) continue;
    const swap = (slot: Slot): Slot => (slot === from ? to : slot);
    made[step] = null;
    touching.get(to)?.delete(step);
    for (const other of touching.get(from) ?? []) {
      const touched = made[other];
      if (!touched) continue;
      made[other] = withSlots(touched, swap, swap);
      touch(to, other);
    }
  }
  return { slots, kernels: made.filter((kernel) => kernel !== null) };
}

function readsOnlyWhereItWrites(kernel: Kernel & { kind: "loop" }, read: Slot, written: Slot): boolean {
  const store = kernel.stores.find((candidate) => candidate.slot === written);
  // Reductions come before the stores of their row. A value of the row that is stored once might be read later by another thread of it.
  if (!store || (kernel.reductions.length > 0 && store.scope === "row")) return false;
  const values = [...kernel.reductions, ...kernel.stores].map(({ value }) => value);
  return [...expressionsBelow(values)].every((expr) => expr.op !== "load" || expr.slot !== read || sameIndex(expr.index, store.index));
}
