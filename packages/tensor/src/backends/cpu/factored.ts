import { affine } from "../../kernels/affine.js";
import type { Expr, ExprMakers, Index } from "../../kernels/expr.js";
import { asFraction, fractionBits, fractionSteps } from "../../kernels/wasm/bytes.js";
import type { SmallIntegers } from "../../kernels/wasm/small-integers.js";

/** An element as scale · factor · rest + constant, of which all but the rest are the same in all lanes. */
export interface Factored {
  readonly rest: Expr;
  readonly factor: Expr | null;
  /** By what a sum of such elements is multiplied at its end. */
  readonly scale: number;
  readonly constant: Expr | null;
}

/** Of a small integer, the rest is what vectors of bytes are widened to in the fewest instructions. */
export function factored(make: ExprMakers, value: Expr, lane: Index, small: SmallIntegers): Factored {
  const { rest, factor, offset, shift } = affine(make, value, lane);
  const integer = rest.dtype === "f32" ? small.based(rest) : null;
  if (!integer) return { ...product(make, value, lane), scale: 1, constant: null };
  const all = integer.offset + offset;
  const bits = Math.max(fractionBits.low, Math.ceil(Math.log2(integer.high + 1)));
  /** number · factor + shift. */
  const constantOf = (number: number): Expr | null => {
    if (number === 0) return shift;
    const moved = factor ? make.binary("mul", factor, make.constant("f32", number)) : make.constant("f32", number);
    return shift ? make.binary("add", shift, moved) : moved;
  };
  if (bits <= fractionBits.high && (all !== 0 || shift)) {
    const { start, step } = fractionSteps(bits);
    return { rest: asFraction(make, integer.base, bits), factor, scale: 1 / step, constant: constantOf(all - start / step) };
  }
  // A lane's top byte holds an integer with its sign.
  const inByte = Number.isInteger(all) && all >= -128 && integer.high + all <= 127 ? all : 0;
  if (inByte + integer.high > 127) return { rest, factor, scale: 1, constant: constantOf(offset) };
  const base = make.cast("i32", integer.base);
  const shifted = make.binary("shl", inByte === 0 ? base : make.binary("add", base, make.int(inByte)), make.int(24));
  return { rest: make.cast("f32", shifted), factor, scale: 2 ** -24, constant: constantOf(all - inByte) };
}

/** A value as a factor that is the same in all lanes, times the rest. */
function product(make: ExprMakers, value: Expr, lane: Index): { readonly rest: Expr; readonly factor: Expr | null } {
  if (value.op !== "binary" || value.kind !== "mul") return { rest: value, factor: null };
  const isSame = (x: Expr): boolean => (x.axes & lane.axes) === 0;
  const [same, other] = isSame(value.a) ? [value.a, value.b] : [value.b, value.a];
  if (!isSame(same)) return { rest: value, factor: null };
  const { rest, factor } = product(make, other, lane);
  return { rest, factor: factor ? make.binary("mul", same, factor) : same };
}

/** Units whose factor and constant are the same. */
export interface Group {
  readonly units: readonly number[];
  readonly factor: Expr | null;
  readonly constant: Expr | null;
}

export function grouped(make: ExprMakers, parts: readonly Factored[]): Group[] {
  const groups = new Map<string, { units: number[]; factor: Expr | null; constant: Expr | null }>();
  for (const [unit, { factor, constant }] of parts.entries()) {
    const key = [factor, constant].map((expr) => (expr ? make.key([expr]) : "")).join(";");
    const group = groups.get(key);
    if (group) group.units.push(unit);
    else groups.set(key, { units: [unit], factor, constant });
  }
  return [...groups.values()];
}
