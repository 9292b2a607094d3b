import type { PlanSlot, Slot } from "../kernels/kernel.js";
import type { Bound } from "../kernels/template.js";
import { type DType, dtypeBytes } from "../tensor/dtype.js";

/** A slot before memory was planned: `binding` for storages from outside, null for what lives inside the plan. */
export interface DraftSlot {
  readonly dtype: DType;
  readonly elementCount: number;
  readonly binding: number | null;
}

/** Kernels in order over slots whose memory is not planned yet. */
export interface Draft {
  readonly kernels: Bound[];
  readonly slots: DraftSlot[];
}

/** Slots as the backends see them, once every inner slot has its place. */
export function finishSlots(slots: readonly DraftSlot[], offsets: ReadonlyMap<Slot, number>): PlanSlot[] {
  return slots.map(({ dtype, elementCount, binding }, slot) => {
    const bytes = elementCount * dtypeBytes[dtype];
    return binding === null
      ? { kind: "arena", dtype, elementCount, bytes, offset: offsets.get(slot) ?? 0 }
      : { kind: "bound", dtype, elementCount, bytes, binding };
  });
}
