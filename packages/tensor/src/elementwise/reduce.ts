import type { ComputeDType } from "../tensor/dtype.js";
import type { BinaryKind } from "./binary.js";

/** Reductions. Integers wrap in sums; NaN is the largest and the smallest value. */
export type ReduceKind = "sum" | "max" | "min";

export interface ReduceDefinition {
  /** What joins the result so far and one more element. */
  readonly combine: BinaryKind & ("add" | "max" | "min");
  /** The result of no elements. */
  readonly start: Readonly<Record<ComputeDType, number>>;
}

/** Every reduction; printers and derivatives follow from `combine`. */
export const reduceKinds: Readonly<Record<ReduceKind, ReduceDefinition>> = {
  sum: { combine: "add", start: { f32: 0, i32: 0, u32: 0, bool: 0 } },
  max: { combine: "max", start: { f32: Number.NEGATIVE_INFINITY, i32: -(2 ** 31), u32: 0, bool: 0 } },
  min: { combine: "min", start: { f32: Number.POSITIVE_INFINITY, i32: 2 ** 31 - 1, u32: 2 ** 32 - 1, bool: 1 } },
};
