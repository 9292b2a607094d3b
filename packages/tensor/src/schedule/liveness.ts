import { type Expr, operandsOf } from "../kernels/expr.js";
import type { Kernel, Reduction, Slot, Store } from "../kernels/kernel.js";
import { dtypeBytes } from "../tensor/dtype.js";
import type { Draft, DraftSlot } from "./build.js";
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
      return loadedBy(kernel.reductions, kernel.stores);
    case "matmul":
      return [...new Set([kernel.a.slot, kernel.b.slot, ...loadedBy([], kernel.epilogue?.stores ?? [])])];
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
    kernels = kernels.filter((other) => other !== copy).map((other) => redirect(other, copy.from, copy.to, other === kernel));
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

/** The kernel with one slot exchanged for another: its stores if it is the producer, its reads otherwise. */
function redirect(kernel: Kernel, from: Slot, to: Slot, isProducer: boolean): Kernel {
  if (!isProducer && !readsOf(kernel).includes(from)) return kernel;
  const swap = (slot: Slot): Slot => (slot === from ? to : slot);
  switch (kernel.kind) {
    case "loop":
      if (isProducer) return { ...kernel, stores: kernel.stores.map((store) => ({ ...store, slot: swap(store.slot) })) };
      return {
        ...kernel,
        reductions: kernel.reductions.map((reduction) => ({ ...reduction, value: swapLoads(reduction.value, from, to) })),
        stores: swapStores(kernel.stores, from, to),
      };
    case "matmul":
      return {
        ...kernel,
        a: { ...kernel.a, slot: swap(kernel.a.slot) },
        b: { ...kernel.b, slot: swap(kernel.b.slot) },
        ...(kernel.epilogue ? { epilogue: { ...kernel.epilogue, stores: swapStores(kernel.epilogue.stores, from, to) } } : {}),
      };
    case "scatterAdd":
      return { ...kernel, indices: swap(kernel.indices), updates: swap(kernel.updates) };
    case "copy":
      return { ...kernel, from: swap(kernel.from) };
    case "composite":
      return { ...kernel, inputs: kernel.inputs.map(swap) };
    case "group":
      throw new Error("Kernels are grouped last.");
  }
}

function swapStores(stores: readonly Store[], from: Slot, to: Slot): Store[] {
  return stores.map((store) => ({ ...store, index: swapLoads(store.index, from, to), value: swapLoads(store.value, from, to) }));
}

function swapLoads(root: Expr, from: Slot, to: Slot): Expr {
  const done = new Map<Expr, Expr>();
  const visit = (expr: Expr): Expr => {
    const known = done.get(expr);
    if (known) return known;
    const made = rebuild(expr);
    done.set(expr, made);
    return made;
  };
  const rebuild = (expr: Expr): Expr => {
    switch (expr.op) {
      case "const":
      case "variable":
      case "accumulator":
        return expr;
      case "load": {
        const index = visit(expr.index);
        return expr.slot === from || index !== expr.index ? { ...expr, slot: expr.slot === from ? to : expr.slot, index } : expr;
      }
      case "unary":
      case "cast": {
        const x = visit(expr.x);
        return x === expr.x ? expr : { ...expr, x };
      }
      case "binary": {
        const [a, b] = [visit(expr.a), visit(expr.b)];
        return a === expr.a && b === expr.b ? expr : { ...expr, a, b };
      }
      case "select": {
        const [condition, a, b] = [visit(expr.condition), visit(expr.a), visit(expr.b)];
        return condition === expr.condition && a === expr.a && b === expr.b ? expr : { ...expr, condition, a, b };
      }
      case "random": {
        const [key0, key1, index] = [visit(expr.key0), visit(expr.key1), visit(expr.index)];
        return key0 === expr.key0 && key1 === expr.key1 && index === expr.index ? expr : { ...expr, key0, key1, index };
      }
    }
  };
  return visit(root);
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

/** Gives inner slots places by liveness: those alive at the same time do not overlap. Largest first, at the lowest free offset. */
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
  const order = [...first.keys()].sort((a, b) => bytesOf(b) - bytesOf(a) || a - b);
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
