import { dtypeBytes } from "../tensor/dtype.js";
import type { DraftSlot } from "./build.js";

/** Offsets are multiples of this: WebGPU's minStorageBufferOffsetAlignment. */
export const slotAlignment = 256;

/** Bytes that a slot takes in the plan's memory. */
export function alignedBytes({ elementCount, dtype }: DraftSlot): number {
  return Math.ceil(Math.max(elementCount * dtypeBytes[dtype], 4) / slotAlignment) * slotAlignment;
}
