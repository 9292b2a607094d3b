import type { Expr, ExprMakers, Index } from "./expr.js";

/**
 * A value as factor · (rest + offset) + shift, of which factor and shift are the same in all lanes; null stands for 1 and for 0. A sum of
 * products with such values is factor · (Σ x · rest) + (factor · offset + shift) · Σ x.
 */
export interface Affine {
  readonly rest: Expr;
  readonly factor: Expr | null;
  readonly offset: number;
  readonly shift: Expr | null;
}

/** The value with as much as possible outside of `rest`. */
export function affine(make: ExprMakers, value: Expr, lane: Index): Affine {
  const whole: Affine = { rest: value, factor: null, offset: 0, shift: null };
  if (value.op !== "binary" || value.dtype !== "f32") return whole;
  const { kind, a, b } = value;
  const isSame = (x: Expr): boolean => (x.axes & lane.axes) === 0;
  if (kind === "mul") {
    if (isSame(a)) return multiplied(make, affine(make, b, lane), a);
    return isSame(b) ? multiplied(make, affine(make, a, lane), b) : whole;
  }
  if (kind === "add") {
    if (isSame(a)) return moved(make, affine(make, b, lane), a);
    return isSame(b) ? moved(make, affine(make, a, lane), b) : whole;
  }
  if (kind === "sub" && isSame(b)) return moved(make, affine(make, a, lane), make.binary("mul", b, make.constant("f32", -1)));
  return whole;
}

function multiplied(make: ExprMakers, { rest, factor, offset, shift }: Affine, by: Expr): Affine {
  const times = (x: Expr): Expr => make.binary("mul", x, by);
  return { rest, factor: factor ? times(factor) : by, offset, shift: shift && times(shift) };
}

function moved(make: ExprMakers, { rest, factor, offset, shift }: Affine, by: Expr): Affine {
  if (!factor && by.op === "const") return { rest, factor, offset: offset + by.value, shift };
  return { rest, factor, offset, shift: shift ? make.binary("add", shift, by) : by };
}
