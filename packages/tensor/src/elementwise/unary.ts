import type { ComputeDType } from "../tensor/dtype.js";

/** Functions of one value. All but `not` (bool) and `neg`, `abs` (any number) are f32 → f32. */
export type UnaryKind = "neg" | "abs" | "exp" | "log" | "sqrt" | "sin" | "cos" | "tanh" | "erf" | "floor" | "not";

export interface UnaryDefinition {
  /** f(x) in float64, not yet rounded to f32 or wrapped to 32 bits: the reference, and what constants fold to. */
  readonly of: (x: number) => number;
  /** Instructions of one evaluation on four lanes, in cheap vector instructions. */
  readonly cost: number;
  /** True where every device gives `of(x)` rounded to f32, so that constants of f32 fold. Integers and bool are always exact. */
  readonly isExact: boolean;
}

/**
 * Every unary kind. The printers (kernels/wasm/arithmetic.ts, kernels/wgsl/elementwise.ts) and the derivatives (autograd's
 * vjp/elementwise.ts) are tables over the same kinds: one that is left out of any of them does not compile.
 */
export const unaryKinds: Readonly<Record<UnaryKind, UnaryDefinition>> = {
  neg: { of: (x) => -x, cost: 1, isExact: true },
  abs: { of: Math.abs, cost: 1, isExact: true },
  exp: { of: Math.exp, cost: 24, isExact: false },
  log: { of: Math.log, cost: 28, isExact: false },
  sqrt: { of: Math.sqrt, cost: 4, isExact: false },
  sin: { of: Math.sin, cost: 120, isExact: false },
  cos: { of: Math.cos, cost: 120, isExact: false },
  tanh: { of: Math.tanh, cost: 36, isExact: false },
  erf: { of: erf, cost: 44, isExact: false },
  floor: { of: Math.floor, cost: 1, isExact: true },
  not: { of: (x) => (x === 0 ? 1 : 0), cost: 1, isExact: true },
};

/** f(x) of a value of `dtype`: integers wrap modulo 2³²; f32 is not rounded. */
export function unaryOf(kind: UnaryKind, x: number, dtype: ComputeDType): number {
  return wrapped(unaryKinds[kind].of(x), dtype);
}

/** An exact integer as the 32 bits of its dtype hold it; f32 as it is. */
export function wrapped(value: number, dtype: ComputeDType): number {
  switch (dtype) {
    case "i32":
      return value | 0;
    case "u32":
      return value >>> 0;
    case "bool":
      return value === 0 ? 0 : 1;
    case "f32":
      return value;
  }
}

/** erf to double precision: Taylor series near 0, continued fraction of erfc beyond. */
function erf(x: number): number {
  const z = Math.abs(x);
  if (Number.isNaN(x)) return x;
  if (z > 6) return Math.sign(x);
  if (z < 2.5) {
    let term = z;
    let total = z;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(total) && n < 200; n++) {
      term *= (-z * z) / n;
      total += term / (2 * n + 1);
    }
    return Math.sign(x) * (2 / Math.sqrt(Math.PI)) * total;
  }
  let fraction = 0;
  for (let n = 100; n > 0; n--) fraction = n / 2 / (z + fraction);
  return Math.sign(x) * (1 - Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + fraction));
}
