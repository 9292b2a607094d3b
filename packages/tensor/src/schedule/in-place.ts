import { expressionsBelow } from "../kernels/expr.js";
import type { CopyKernel, LoopKernel, Slot } from "../kernels/kernel.js";
import { type Bound, type Template, withSlots } from "../kernels/template.js";
import type { Draft } from "./draft.js";
import { sameIndex } from "./space.js";

/**
 * A new value that is copied over an input at the end of the plan is computed there directly when its kernel is the last to read that
 * input and reads each element only where it writes it.
 */
export function updateInPlace({ kernels, slots }: Draft): Draft {
  const made: (Bound | null)[] = [...kernels];
  /** What is asked of slots that are copied, or copied to: the first kernel that writes each, and those that touch it. */
  const writers = new Int32Array(slots.length).fill(-1);
  const touching: (number[] | undefined)[] = new Array(slots.length);
  for (const kernel of kernels) if (kernel.kind === "copy") for (const slot of kernel.slots) touching[slot] = [];
  for (let step = 0; step < kernels.length; step++) {
    const { slots: touched, writes } = kernels[step] as Bound; // within bounds
    for (let i = 0; i < touched.length; i++) touching[touched[i] as Slot]?.push(step);
    for (let i = 0; i < writes.length; i++) {
      const slot = writes[i] as Slot; // within bounds
      if (writers[slot] === -1) writers[slot] = step;
    }
  }
  for (let step = 0; step < kernels.length; step++) {
    const copy = made[step];
    if (copy?.kind !== "copy") continue;
    const { from, to } = slotsOfCopy(copy);
    if (slots[to]?.binding === null || slots[from]?.binding !== null) continue;
    const producer = writers[from] as number;
    const kernel = made[producer];
    if (kernel?.kind !== "loop" || slots[from]?.dtype !== slots[to]?.dtype) continue;
    const [users, others] = [touching[to], touching[from]] as [number[], number[]]; // of a copy
    if (users.some((other) => other !== step && other > producer) || !readsOnlyWhereItWrites(kernel, to, from)) continue;
    const swap = (slot: Slot): Slot => (slot === from ? to : slot);
    made[step] = null;
    users.splice(users.indexOf(step), 1);
    for (const other of others) {
      const touched = made[other];
      if (!touched) continue;
      made[other] = withSlots(touched, swap, swap);
      if (!users.includes(other)) users.push(other);
    }
  }
  return { slots, kernels: made.filter((kernel) => kernel !== null) };
}

/** Where a copy reads and writes. */
export function slotsOfCopy({ template, slots }: Bound): { readonly from: Slot; readonly to: Slot } {
  const { from, to } = template.kernel as CopyKernel; // of that kind
  return { from: slots[from] as Slot, to: slots[to] as Slot };
}

/** For each template the answers of `isReadOnlyWhereWritten`, by operands. */
const known = new WeakMap<Template, Map<string, boolean>>();

function readsOnlyWhereItWrites({ template, slots }: Bound, read: Slot, written: Slot): boolean {
  const [readOperand, writtenOperand] = [slots.indexOf(read), slots.indexOf(written)];
  const key = `${readOperand} ${writtenOperand}`;
  let answers = known.get(template);
  if (!answers) known.set(template, (answers = new Map()));
  let answer = answers.get(key);
  if (answer === undefined) answers.set(key, (answer = isReadOnlyWhereWritten(template.kernel as LoopKernel, readOperand, writtenOperand)));
  return answer;
}

function isReadOnlyWhereWritten(kernel: LoopKernel, read: Slot, written: Slot): boolean {
  const store = kernel.stores.find((candidate) => candidate.slot === written);
  // Reductions come before the stores of their row. A value of the row that is stored once might be read later by another thread of it.
  if (!store || (kernel.reductions.length > 0 && store.scope === "row")) return false;
  for (const expr of expressionsBelow([...kernel.reductions, ...kernel.stores].map(({ value }) => value)))
    if (expr.op === "load" && expr.slot === read && !sameIndex(expr.index, store.index)) return false;
  return true;
}
