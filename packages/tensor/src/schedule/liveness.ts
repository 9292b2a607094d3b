import { slotAlignment } from "../kernels/kernel.js";
import { dtypeBytes } from "../tensor/dtype.js";
import type { DraftSlot } from "./draft.js";

/** Bytes that a slot takes in the plan's memory. */
export function alignedBytes({ elementCount, dtype }: DraftSlot): number {
  return Math.ceil(Math.max(elementCount * dtypeBytes[dtype], 4) / slotAlignment) * slotAlignment;
}
