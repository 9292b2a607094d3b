import { type Expr, type ExprMakers, expressionsBelow, type Index } from "./expr.js";
import type { Slot } from "./kernel.js";
import { substitute } from "./substitute.js";

/** The axes of attention's scores, as variables of its bodies. */
export const scoreAxes = { batch: 0, head: 1, query: 2, key: 3 } as const;

/** The slots that bodies read, in the order of first use. */
export function bodySlots(bodies: readonly Expr[]): Slot[] {
  return [...new Set([...expressionsBelow(bodies)].flatMap((expr) => (expr.op === "load" ? [expr.slot] : [])))];
}

/**
 * Bodies for a kernel that computes `step` elements along an axis at a time, past the end where `step` does not divide its `size`: what is
 * loaded there is the last element. The result has one maker, so that equal parts are computed once.
 */
export function withinAxis(bodies: readonly Expr[], make: ExprMakers, axis: number, size: number, step: number): Expr[] {
  const end = Math.ceil(size / step) * step;
  const loads = [...expressionsBelow(bodies)].some((expr) => expr.op === "load");
  const seen = new Map<Expr, Expr>();
  const variable = (other: number, count: number): Index => {
    if (other !== axis) return make.variable(other, count);
    return loads && end > size ? make.index("min", make.variable(axis, end), make.int(size - 1)) : make.variable(axis, count);
  };
  return bodies.map((body) => substitute(body, make, variable, seen));
}
