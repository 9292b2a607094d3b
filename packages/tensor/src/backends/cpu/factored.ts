import { affine } from "../../kernels/affine.js";
import type { Expr, ExprMakers, Index } from "../../kernels/expr.js";
import { asFraction, fractionBits, fractionSteps } from "../../kernels/wasm/bytes.js";
import type { BytesKind } from "../../kernels/wasm/sixteen-bits.js";
import type { SmallIntegers } from "../../kernels/wasm/small-integers.js";

/** An element as factor · (scale · rest + offset) + shift, of which all but the rest are the same in all lanes. */
export interface Factored {
  readonly rest: Expr;
  readonly factor: Expr | null;
  /** Numbers by which sums are multiplied at their end. */
  readonly scale: number;
  readonly offset: number;
  readonly shift: Expr | null;
}

/** An element as factor · (rest + offset) + shift, of which the rest are bytes. */
export interface IntegerPart extends Pick<Factored, "rest" | "factor" | "offset" | "shift"> {
  /** How its bytes are found, and its largest magnitude. */
  readonly kind: BytesKind;
  readonly high: number;
}

/** Integers further from 0 are no offset of bytes. */
const mostOffset = 255;

/** Null for an element that is not so. */
export function affineInteger(make: ExprMakers, value: Expr, lane: Index, small: SmallIntegers): IntegerPart | null {
  const { rest, factor, offset, shift } = affine(make, value, lane);
  const integer = small.loadsOf(rest) && small.based(rest);
  if (!integer || (rest.axes & lane.axes) === 0) return null;
  const all = integer.offset + offset;
  const signed = all === -128 ? small.asSigned(integer.base) : null;
  if (signed) {
    const kind = small.isInOrder(signed) ? "signed in memory" : "signed";
    return { rest: signed, factor, offset: 0, shift, kind, high: 128 };
  }
  const part = { rest: integer.base, factor, kind: "unsigned", high: integer.high } as const;
  if (Number.isInteger(all) && Math.abs(all) <= mostOffset) return { ...part, offset: all, shift };
  const moved = make.constant("f32", all);
  const more = factor ? make.binary("mul", factor, moved) : moved;
  return { ...part, offset: 0, shift: shift ? make.binary("add", shift, more) : more };
}

/** Of a small integer, the rest is what vectors of bytes are widened to in the fewest instructions. */
export function factored(make: ExprMakers, value: Expr, lane: Index, small: SmallIntegers): Factored {
  const { rest, factor, offset, shift } = affine(make, value, lane);
  const integer = rest.dtype === "f32" ? small.based(rest) : null;
  if (!integer) return { ...product(make, value, lane), scale: 1, offset: 0, shift: null };
  const all = integer.offset + offset;
  const bits = Math.max(fractionBits.low, Math.ceil(Math.log2(integer.high + 1)));
  if (bits <= fractionBits.high && (all !== 0 || shift)) {
    const { start, step } = fractionSteps(bits);
    return { rest: asFraction(make, integer.base, bits), factor, scale: 1 / step, offset: all - start / step, shift };
  }
  // A lane's top byte holds an integer with its sign.
  const inByte = Number.isInteger(all) && all >= -128 && integer.high + all <= 127 ? all : 0;
  if (inByte + integer.high > 127) return { rest, factor, scale: 1, offset, shift };
  const base = make.cast("i32", integer.base);
  const shifted = make.binary("shl", inByte === 0 ? base : make.binary("add", base, make.int(inByte)), make.int(24));
  return { rest: make.cast("f32", shifted), factor, scale: 2 ** -24, offset: all - inByte, shift };
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

/** Units that differ in their rest alone. */
export interface Group extends Pick<Factored, "factor" | "offset" | "shift"> {
  readonly units: readonly number[];
}

export function grouped(make: ExprMakers, parts: readonly Pick<Factored, "factor" | "offset" | "shift">[]): Group[] {
  const groups = new Map<string, Group & { readonly units: number[] }>();
  for (const [unit, { factor, offset, shift }] of parts.entries()) {
    const key = [offset, ...[factor, shift].map((expr) => (expr ? make.key([expr]) : ""))].join(";");
    const group = groups.get(key);
    if (group) group.units.push(unit);
    else groups.set(key, { units: [unit], factor, offset, shift });
  }
  return [...groups.values()];
}
