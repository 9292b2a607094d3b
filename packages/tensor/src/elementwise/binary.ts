import type { ComputeDType } from "../tensor/dtype.js";
import { wrapped } from "./unary.js";

/**
 * Functions of two values of one type. `lt`, `le`, `eq` give bool; `and`, `or`, `xor` take bool or integers, `shl`, `shr` integers.
 * Integer arithmetic wraps modulo 2³². Integer `div` and `mod` truncate toward zero; an integer divided by zero gives 0 (no trap). f32
 * `mod` is C's fmod. Shifts take their count modulo 32. Integer `pow` to a negative power truncates toward zero too.
 */
export type BinaryKind =
  | "add"
  | "sub"
  | "mul"
  | "div"
  | "mod"
  | "pow"
  | "max"
  | "min"
  | "lt"
  | "le"
  | "eq"
  | "and"
  | "or"
  | "xor"
  | "shl"
  | "shr";

export interface BinaryDefinition {
  /** f(a, b) in float64, not yet rounded to f32 or wrapped to 32 bits: the reference, and what constants fold to. */
  readonly of: (a: number, b: number, dtype: ComputeDType) => number;
  /** Instructions of one evaluation on four lanes, in cheap vector instructions; integers where they differ from f32. */
  readonly cost: number;
  readonly integerCost?: number;
  /** True where every device gives `of(a, b)` rounded to f32, so that constants of f32 fold. Integers and bool are always exact. */
  readonly isExact: boolean;
  /** Comparisons give bool, all others the type of their operands. */
  readonly result: "bool" | "operands";
}

const exact = { cost: 1, isExact: true, result: "operands" } as const;
const comparison = { cost: 1, isExact: true, result: "bool" } as const;

/** Every binary kind; see `unaryKinds`. */
export const binaryKinds: Readonly<Record<BinaryKind, BinaryDefinition>> = {
  add: { ...exact, of: (a, b) => a + b },
  sub: { ...exact, of: (a, b) => a - b },
  mul: { ...exact, of: (a, b, dtype) => (dtype === "f32" ? a * b : Math.imul(a, b)) },
  // WGSL lets f32 division be wrong in the last places.
  div: {
    ...exact,
    of: (a, b, dtype) => (dtype === "f32" ? a / b : b === 0 ? 0 : Math.trunc(a / b)),
    cost: 4,
    integerCost: 24,
    isExact: false,
  },
  mod: { ...exact, of: (a, b, dtype) => (dtype !== "f32" && b === 0 ? 0 : a % b), cost: 24 },
  pow: { ...exact, of: (a, b, dtype) => (dtype === "f32" ? a ** b : integerPower(a, b)), cost: 200, isExact: false },
  max: { ...exact, of: (a, b) => Math.max(a, b) },
  min: { ...exact, of: (a, b) => Math.min(a, b) },
  lt: { ...comparison, of: (a, b) => (a < b ? 1 : 0) },
  le: { ...comparison, of: (a, b) => (a <= b ? 1 : 0) },
  eq: { ...comparison, of: (a, b) => (a === b ? 1 : 0) },
  and: { ...exact, of: (a, b) => a & b },
  or: { ...exact, of: (a, b) => a | b },
  xor: { ...exact, of: (a, b) => a ^ b },
  shl: { ...exact, of: (a, b) => a << b },
  shr: { ...exact, of: (a, b, dtype) => (dtype === "u32" ? a >>> b : a >> b) },
};

/** f(a, b) of values of `dtype`: integers wrap modulo 2³²; f32 is not rounded. */
export function binaryOf(kind: BinaryKind, a: number, b: number, dtype: ComputeDType): number {
  return wrapped(binaryKinds[kind].of(a, b, dtype), binaryResult(kind, dtype));
}

/** The dtype of f(a, b) for operands of `dtype`. */
export function binaryResult(kind: BinaryKind, dtype: ComputeDType): ComputeDType {
  return binaryKinds[kind].result === "bool" ? "bool" : dtype;
}

/** aᵇ modulo 2³² by squaring; a negative power of anything but ±1 is 0. */
function integerPower(a: number, b: number): number {
  if (b < 0) return a === 1 ? 1 : a === -1 ? (b % 2 === 0 ? 1 : -1) : 0;
  let result = 1;
  let square = a | 0;
  for (let left = b; left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) result = Math.imul(result, square);
    square = Math.imul(square, square);
  }
  return result;
}
