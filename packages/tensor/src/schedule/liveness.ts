import { expressionsBelow } from "../kernels/expr.js";
import { type Kernel, type Reduction, rootsOf, type Slot, type Store } from "../kernels/kernel.js";
import { productsOf, slotsOfOperand } from "../kernels/products.js";
import { dtypeBytes } from "../tensor/dtype.js";
import type { DraftSlot } from "./build.js";

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
      return [
        ...new Set([
          ...productsOf(kernel).flatMap(({ a, b }) => [...slotsOfOperand(a), ...slotsOfOperand(b)]),
          ...loadedBy([], kernel.epilogue?.stores ?? []),
        ]),
      ];
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
  for (const expr of expressionsBelow(rootsOf({ reductions, stores }))) if (expr.op === "load") slots.add(expr.slot);
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

/** Bytes that a slot takes in the plan's memory. */
export function alignedBytes({ elementCount, dtype }: DraftSlot): number {
  return Math.ceil(Math.max(elementCount * dtypeBytes[dtype], 4) / slotAlignment) * slotAlignment;
}
