import { binaryKinds, binaryOf } from "../elementwise/binary.js";
import { type Expr, type Index, isIndex, type Range } from "./expr.js";

/** What an integer is where variable `axis` is 0, 1, … `count` − 1; null where it depends on anything else. */
export function laneValues(expr: Expr, axis: number, count: number): number[] | null {
  if ((expr.axes & ~(1 << axis)) !== 0) return null;
  const values = Array.from({ length: count }, (_, lane) => valueAt(expr, lane));
  return values.includes(null) ? null : (values as number[]);
}

function valueAt(expr: Expr, lane: number): number | null {
  switch (expr.op) {
    case "const":
      return expr.dtype === "f32" ? null : expr.value;
    case "variable":
      return lane;
    case "given":
      return valueAt(expr.x, lane);
    case "cast":
      return expr.dtype === "f32" || expr.x.dtype === "f32" ? null : valueAt(expr.x, lane);
    case "index":
    case "binary": {
      if (expr.dtype === "f32") return null;
      const [a, b] = [valueAt(expr.a, lane), valueAt(expr.b, lane)];
      if (a === null || b === null) return null;
      return expr.op === "index" ? binaryKinds[expr.kind].of(a, b, "i32") : binaryOf(expr.kind, a, b, expr.a.dtype);
    }
    default:
      return null;
  }
}

/** How far an index is, where variable `axis` is 0, 1, … `count` − 1, from where it is 0; null where that depends on anything else. */
export function lanePattern(index: Index, axis: number, count: number): number[] | null {
  if ((index.axes & (1 << axis)) === 0) return new Array<number>(count).fill(0);
  if (index.op === "index" && (index.kind === "add" || index.kind === "sub")) {
    const [a, b] = [lanePattern(index.a, axis, count), lanePattern(index.b, axis, count)];
    const sign = index.kind === "add" ? 1 : -1;
    return a && b && a.map((offset, lane) => offset + sign * (b[lane] ?? 0));
  }
  if (index.op === "index" && index.kind === "mul" && index.b.op === "const") {
    const factor = index.b.value;
    return lanePattern(index.a, axis, count)?.map((offset) => offset * factor) ?? null;
  }
  const values = laneValues(index, axis, count);
  return values?.map((value) => value - (values[0] ?? 0)) ?? null;
}

/** The smallest and largest value of an integer that is made of indices and numbers; null where that is not known. */
export function rangeOf(expr: Expr): Range | null {
  if (expr.op === "const") return expr.dtype === "f32" ? null : { low: expr.value, high: expr.value };
  if (isIndex(expr)) return Number.isFinite(expr.low) && Number.isFinite(expr.high) ? expr : null;
  if (expr.op === "cast") {
    const range = expr.dtype === "f32" || expr.x.dtype === "f32" ? null : rangeOf(expr.x);
    return range && (range.low >= 0 || expr.dtype === "i32") ? range : null;
  }
  if (expr.op !== "binary" || expr.dtype === "f32") return null;
  const [a, b] = [rangeOf(expr.a), rangeOf(expr.b)];
  if (!b || b.low < 0) return null;
  if (expr.kind === "and") return { low: 0, high: a && a.low >= 0 ? Math.min(a.high, b.high) : b.high };
  if (!a || a.low < 0) return null;
  const within = (high: number): Range | null => (high < 2 ** 31 ? { low: 0, high } : null);
  if (expr.kind === "add") return within(a.high + b.high);
  return expr.kind === "mul" ? within(a.high * b.high) : null;
}
