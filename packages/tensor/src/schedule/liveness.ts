import { type Expr, operandsOf } from "../kernels/expr.js";
import type { Kernel, Reduction, Slot, Store } from "../kernels/kernel.js";
import { productsOf } from "../kernels/products.js";
import { dtypeBytes } from "../tensor/dtype.js";
import type { Draft, DraftSlot } from "./build.js";
import { withSlots } from "./slots.js";
import { sameIndex } from "./space.js";

/** Offsets are multiples of this: WebGPU's minStorageBufferOffsetAlignment. */
export const slotAlignment = 256;

const reads = new WeakMap<Kernel, readonly Slot[]>();
const writes = new WeakMap<Kernel, readonly Slot[]>();

/** What `find` says of a kernel, found once: kernels never change, and planning asks of each many times. */
function remembered(known: WeakMap<Kernel, readonly Slot[]>, kernel: Kernel, find: (kernel: Kernel) => readonly Slot[]): readonly Slot[] {
  const before = known.get(kernel);
  if (before) return before;
  const slots = find(kernel);
  known.set(kernel, slots);
  return slots;
}

/** The slots that a kernel reads. */
export function readsOf(kernel: Kernel): readonly Slot[] {
  return remembered(reads, kernel, findReads);
}

/** The slots that a kernel writes. */
export function writesOf(kernel: Kernel): readonly Slot[] {
  return remembered(writes, kernel, findWrites);
}

function findReads(kernel: Kernel): Slot[] {
  switch (kernel.kind) {
    case "loop":
      return [...new Set([...loadedBy(kernel.reductions, kernel.stores), ...(kernel.over === undefined ? [] : [kernel.over.from])])];
    case "matmul":
      return [...new Set([...productsOf(kernel).flatMap(({ a, b }) => [a.slot, b.slot]), ...loadedBy([], kernel.epilogue?.stores ?? [])])];
    case "scatterAdd":
      return [kernel.indices, kernel.updates];
    case "copy":
      return [kernel.from];
    case "composite":
      return [...kernel.inputs];
    case "group":
      return [...new Set(kernel.members.flatMap(readsOf))];
  }
}

function loadedBy(reductions: readonly Reduction[], stores: readonly Store[]): Slot[] {
  const slots = new Set<Slot>();
  const seen = new Set<Expr>();
  const visit = (expr: Expr): void => {
    if (seen.has(expr)) return;
    seen.add(expr);
    if (expr.op === "load") slots.add(expr.slot);
    for (const operand of operandsOf(expr)) visit(operand);
  };
  for (const { value } of reductions) visit(value);
  for (const { value, index } of stores) {
    visit(value);
    visit(index);
  }
  return [...slots];
}

function findWrites(kernel: Kernel): Slot[] {
  switch (kernel.kind) {
    case "loop":
      return kernel.stores.map((store) => store.slot);
    case "matmul":
      return [...new Set([kernel.out, ...(kernel.epilogue?.stores.map((store) => store.slot) ?? [])])];
    case "scatterAdd":
      return [kernel.out];
    case "copy":
      return [kernel.to];
    case "composite":
      return [...kernel.outputs];
    case "group":
      return kernel.members.flatMap(writesOf);
  }
}

/**
 * A new value that is copied over an input at the end of the plan is computed there directly when its kernel is the last to read that
 * input and reads each element only where it writes it.
 */
export function updateInPlace(draft: Draft): Draft {
  let { kernels } = draft;
  for (const copy of kernels.filter((kernel) => kernel.kind === "copy")) {
    if (draft.slots[copy.to]?.binding === null || draft.slots[copy.from]?.binding !== null) continue;
    const producer = kernels.findIndex((kernel) => writesOf(kernel).includes(copy.from));
    const kernel = kernels[producer];
    if (kernel?.kind !== "loop" || draft.slots[copy.from]?.dtype !== draft.slots[copy.to]?.dtype) continue;
    const touchesLater = kernels.some(
      (other, i) => other !== copy && i > producer && (readsOf(other).includes(copy.to) || writesOf(other).includes(copy.to)),
    );
    if (touchesLater || !readsOnlyWhereItWrites(kernel, copy.to, copy.from)) continue;
    const swap = (slot: Slot): Slot => (slot === copy.from ? copy.to : slot);
    const isTouched = (other: Kernel): boolean => other === kernel || readsOf(other).includes(copy.from);
    kernels = kernels.filter((other) => other !== copy).map((other) => (isTouched(other) ? withSlots(other, swap, swap) : other));
  }
  return { slots: draft.slots, kernels };
}

function readsOnlyWhereItWrites(kernel: Kernel & { kind: "loop" }, read: Slot, written: Slot): boolean {
  const store = kernel.stores.find((candidate) => candidate.slot === written);
  // Reductions come before the stores of their row. A value of the row that is stored once might be read later by another thread of it.
  if (!store || (kernel.reductions.length > 0 && store.scope === "row")) return false;
  const seen = new Set<Expr>();
  const isFine = (expr: Expr): boolean => {
    if (seen.has(expr)) return true;
    seen.add(expr);
    if (expr.op === "load" && expr.slot === read && !sameIndex(expr.index, store.index)) return false;
    return operandsOf(expr).every(isFine);
  };
  return kernel.reductions.every(({ value }) => isFine(value)) && kernel.stores.every(({ value }) => isFine(value));
}

/** Bytes that a slot takes in the plan's memory. */
export function alignedBytes({ elementCount, dtype }: DraftSlot): number {
  return Math.ceil(Math.max(elementCount * dtypeBytes[dtype], 4) / slotAlignment) * slotAlignment;
}

/** Where each inner slot lies in the plan's memory. */
export interface Layout {
  readonly offsets: Map<Slot, number>;
  readonly arenaBytes: number;
  /** The largest sum of slots alive at one time: no layout can need less. */
  readonly lowerBoundBytes: number;
}

/**
 * Gives inner slots places by liveness: those alive at the same time do not overlap. Largest first, equals in the order of their lives (so
 * that equals alone take no more than is alive at a time), at the lowest free offset.
 */
export function layOut(kernels: readonly Kernel[], slots: readonly DraftSlot[]): Layout {
  const first = new Map<Slot, number>();
  const last = new Map<Slot, number>();
  for (const [step, kernel] of kernels.entries()) {
    for (const slot of [...writesOf(kernel), ...readsOf(kernel)]) {
      if (slots[slot]?.binding !== null) continue;
      if (!first.has(slot)) first.set(slot, step);
      last.set(slot, step);
    }
  }
  const bytesOf = (slot: Slot): number => alignedBytes(slots[slot] ?? { elementCount: 0, dtype: "f32", binding: null });
  const order = [...first.keys()].sort((a, b) => bytesOf(b) - bytesOf(a) || (first.get(a) ?? 0) - (first.get(b) ?? 0));
  const placed: { slot: Slot; start: number; end: number }[] = [];
  const offsets = new Map<Slot, number>();
  let arenaBytes = 0;
  for (const slot of order) {
    const [from, to, bytes] = [first.get(slot) ?? 0, last.get(slot) ?? 0, bytesOf(slot)];
    const rivals = placed
      .filter((other) => (first.get(other.slot) ?? 0) <= to && (last.get(other.slot) ?? 0) >= from)
      .sort((a, b) => a.start - b.start);
    let start = 0;
    for (const rival of rivals) {
      if (rival.start - start >= bytes) break;
      start = Math.max(start, rival.end);
    }
    placed.push({ slot, start, end: start + bytes });
    offsets.set(slot, start);
    arenaBytes = Math.max(arenaBytes, start + bytes);
  }
  let lowerBoundBytes = 0;
  for (const step of kernels.keys()) {
    const alive = order.filter((slot) => (first.get(slot) ?? 0) <= step && (last.get(slot) ?? 0) >= step);
    lowerBoundBytes = Math.max(
      lowerBoundBytes,
      alive.reduce((sum, slot) => sum + bytesOf(slot), 0),
    );
  }
  return { offsets, arenaBytes, lowerBoundBytes };
}
