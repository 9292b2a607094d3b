import type { Expr } from "../src/kernels/expr.js";
import type { LoopKernel, Slot } from "../src/kernels/kernel.js";
import type { ComputeDType } from "../src/tensor/dtype.js";

/** Contents of the slots as numbers, as a kernel sees them: widened to their compute types. */
export type SlotValues = Map<Slot, number[]>;

/** What happens to the result of each f32 operation. */
export type Rounding = (x: number) => number;

/**
 * Runs a loop kernel one scalar at a time, in float64 (integers wrap as the machine's do): what printed kernels are compared with.
 * With a `round` that disturbs results a little it shows how much rounding can matter.
 */
export function interpret(kernel: LoopKernel, slots: SlotValues, round: Rounding = (x) => x): void {
  const sizes = [...kernel.outer, kernel.inner];
  const rows = kernel.outer.reduce((all, size) => all * size, 1);
  const variables = sizes.map(() => 0);
  const accumulators: number[] = [];
  const inner = sizes.length - 1;
  const store = (slot: Slot, index: number, value: number): void => {
    const target = slots.get(slot);
    if (!target || index < 0 || index >= target.length) throw new Error(`interpret: store at ${index} of slot ${slot}`);
    target[index] = value;
  };
  for (let row = 0; row < rows; row++) {
    let rest = row;
    for (let axis = inner - 1; axis >= 0; axis--) {
      variables[axis] = rest % (sizes[axis] ?? 1);
      rest = Math.floor(rest / (sizes[axis] ?? 1));
    }
    const at = (expr: Expr): number => evaluate(expr, variables, accumulators, slots, round);
    for (const [k, { combine, value }] of kernel.reductions.entries()) {
      let total = starts[combine][value.dtype];
      for (let i = 0; i < kernel.inner; i++) {
        variables[inner] = i;
        const next = at(value);
        total = combine === "sum" ? fit(value.dtype, total + next, round) : Math[combine](total, next);
      }
      accumulators[k] = total;
    }
    for (let i = 0; i < kernel.inner; i++) {
      variables[inner] = i;
      for (const { scope, slot, index, value } of kernel.stores) if (scope === "element") store(slot, at(index), at(value));
    }
    variables[inner] = 0;
    for (const { scope, slot, index, value } of kernel.stores) if (scope === "row") store(slot, at(index), at(value));
  }
}

const starts = {
  sum: { f32: 0, i32: 0, u32: 0, bool: 0 },
  max: { f32: Number.NEGATIVE_INFINITY, i32: -0x80000000, u32: 0, bool: 0 },
  min: { f32: Number.POSITIVE_INFINITY, i32: 0x7fffffff, u32: 0xffffffff, bool: 1 },
} as const;

function wrap(dtype: ComputeDType, value: number): number {
  if (dtype === "i32") return value | 0;
  if (dtype === "u32") return value >>> 0;
  return value;
}

function fit(dtype: ComputeDType, value: number, round: Rounding): number {
  return dtype === "f32" ? round(value) : wrap(dtype, value);
}

function evaluate(expr: Expr, variables: readonly number[], accumulators: readonly number[], slots: SlotValues, round: Rounding): number {
  const at = (x: Expr): number => evaluate(x, variables, accumulators, slots, round);
  switch (expr.op) {
    case "const":
      return expr.value;
    case "variable":
      return variables[expr.axis] ?? Number.NaN;
    case "load": {
      const value = slots.get(expr.slot)?.[at(expr.index)];
      if (value === undefined) throw new Error(`interpret: load at ${at(expr.index)} of slot ${expr.slot}`);
      return value;
    }
    case "accumulator":
      return accumulators[expr.index] ?? Number.NaN;
    case "select":
      return at(expr.condition) ? at(expr.a) : at(expr.b);
    case "cast":
      return cast(expr.x.dtype, expr.dtype, at(expr.x));
    case "unary":
      return fit(expr.dtype, unary(expr.kind, at(expr.x)), round);
    case "given":
      return at(expr.x);
    case "binary":
    case "index":
      return fit(expr.dtype, binary(expr, at(expr.a), at(expr.b)), round);
    case "random":
      return philox(at(expr.key0), at(expr.key1), at(expr.stream), at(expr.index));
  }
}

function cast(from: ComputeDType, to: ComputeDType, x: number): number {
  if (to === "bool") return x === 0 ? 0 : 1;
  if (to === "f32") return x;
  if (from !== "f32") return wrap(to, x);
  if (Number.isNaN(x)) return 0;
  return to === "i32" ? Math.min(Math.max(Math.trunc(x), -0x80000000), 0x7fffffff) : Math.min(Math.max(Math.trunc(x), 0), 0xffffffff);
}

/** erf by its series for small and its continued fraction for large arguments, in float64. */
export function erf(x: number): number {
  const t = Math.abs(x);
  if (!(t < 6)) return Number.isNaN(x) ? x : Math.sign(x);
  if (t < 2.5) {
    let term = t;
    let sum = t;
    for (let n = 1; n < 80; n++) {
      term *= (-t * t) / n;
      sum += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let n = 120; n > 0; n--) fraction = n / 2 / (t + fraction);
  return Math.sign(x) * (1 - Math.exp(-t * t) / Math.sqrt(Math.PI) / (t + fraction));
}

function unary(kind: (Expr & { op: "unary" })["kind"], x: number): number {
  switch (kind) {
    case "neg":
      return -x;
    case "not":
      return x === 0 ? 1 : 0;
    case "erf":
      return erf(x);
    default:
      return Math[kind](x);
  }
}

function binary({ kind, a: { dtype } }: Expr & { op: "binary" | "index" }, a: number, b: number): number {
  switch (kind) {
    case "add":
      return wrap(dtype, a + b);
    case "sub":
      return wrap(dtype, a - b);
    case "mul":
      return dtype === "f32" ? a * b : wrap(dtype, Math.imul(a, b));
    case "div":
      return dtype === "f32" ? a / b : b === 0 ? 0 : wrap(dtype, Math.trunc(a / b));
    case "mod":
      return dtype === "f32" ? a % b : b === 0 ? 0 : wrap(dtype, a % b);
    case "pow":
      return a === 1 || (Math.abs(a) === 1 && Math.abs(b) === Number.POSITIVE_INFINITY) ? 1 : a ** b;
    case "max":
      return Math.max(a, b);
    case "min":
      return Math.min(a, b);
    case "lt":
      return a < b ? 1 : 0;
    case "le":
      return a <= b ? 1 : 0;
    case "eq":
      return a === b ? 1 : 0;
    case "and":
      return wrap(dtype, a & b);
    case "or":
      return wrap(dtype, a | b);
    case "xor":
      return wrap(dtype, a ^ b);
    case "shl":
      return wrap(dtype, a << b);
    case "shr":
      return dtype === "u32" ? (a >>> 0) >>> b : a >> b;
  }
}

/** Philox4x32-10 (Salmon et al. 2011): word `index & 3` of counter [index >> 2, 0, stream, 0]. */
export function philox(key0: number, key1: number, stream: number, index: number): number {
  let c = [index >>> 2, 0, stream >>> 0, 0];
  let k = [key0 >>> 0, key1 >>> 0];
  for (let round = 0; round < 10; round++) {
    const [c0 = 0, c1 = 0, c2 = 0, c3 = 0] = c;
    const [k0 = 0, k1 = 0] = k;
    const p0 = BigInt(c0) * 0xd2511f53n;
    const p1 = BigInt(c2) * 0xcd9e8d57n;
    c = [(Number(p1 >> 32n) ^ c1 ^ k0) >>> 0, Number(p1 & 0xffffffffn), (Number(p0 >> 32n) ^ c3 ^ k1) >>> 0, Number(p0 & 0xffffffffn)];
    k = [(k0 + 0x9e3779b9) >>> 0, (k1 + 0xbb67ae85) >>> 0];
  }
  return c[index & 3] ?? 0;
}
