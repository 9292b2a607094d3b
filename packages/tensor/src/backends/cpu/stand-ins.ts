import type { Slot } from "../../kernels/kernel.js";

let last: Slot = 0;

/**
 * A number that stands among a kernel's slots for a memory that is none of the plan's. None is given twice, because the steps of one product may
 * be made of another's.
 */
export function standIn(): Slot {
  return --last;
}
