import { type BinaryKind, binaryKinds, binaryResult } from "../elementwise/binary.js";
import { type UnaryKind, unaryKinds } from "../elementwise/unary.js";
import type { ComputeDType } from "../tensor/dtype.js";
import { type IndexKind, rangeOfIndex, simplifyComparison, simplifyIndex } from "./index-arithmetic.js";

export type { BinaryKind } from "../elementwise/binary.js";
export type { UnaryKind } from "../elementwise/unary.js";
export type { IndexKind } from "./index-arithmetic.js";

/** What every expression knows of itself from when it is made. */
interface Facts {
  /** Bit a is set when the value depends on variable a, bit 31 when it depends on an accumulator. */
  readonly axes: number;
}

/** An i32 that is an index, and the smallest and largest value that it can take; infinite where unknown. */
interface Bounded extends Facts {
  readonly dtype: "i32";
  readonly low: number;
  readonly high: number;
}

/**
 * Index arithmetic: where the scheduler reads and stores. It stays within the tensors, so it never overflows, and is simplified with the
 * ranges of its values.
 *
 * - variable: loop variable `axis` of the kernel, 0 ≤ value < size.
 * - index: `a kind b`, truncating division.
 * - given: the user's value `x` as an index, of which nothing is known: it is clamped before it counts.
 */
export type Index =
  | (Bounded & { readonly op: "const"; readonly value: number })
  | (Bounded & { readonly op: "variable"; readonly axis: number; readonly size: number })
  | (Bounded & { readonly op: "index"; readonly kind: IndexKind; readonly a: Index; readonly b: Index })
  | (Bounded & { readonly op: "given"; readonly x: Expr });

interface Typed extends Facts {
  readonly dtype: ComputeDType;
}

/**
 * The kernel IR: a pure expression over loop variables, loads and row accumulators. Every index is an expression; `unary`, `binary`,
 * `select` and `cast` are user arithmetic, which computes what the user wrote: integers wrap modulo 2³², and nothing is simplified but
 * constants, to what the device computes. Expressions are interned (see `ExprMakers`): equal expressions are the same object, so a printer
 * that keeps a Map<Expr, local> gets common-subexpression elimination for nothing.
 *
 * - load: element `index` of slot `slot`, widened to its compute type. Always in bounds: padding clamps its index and selects.
 * - accumulator: the finished value of the kernel's reduction number `index`.
 * - random: word `index & 3` of Philox4x32-10 with counter [index >> 2, 0, stream, 0] and key [key0, key1], as u32.
 */
export type Expr =
  | Index
  | (Typed & { readonly op: "const"; readonly value: number })
  | (Typed & { readonly op: "load"; readonly slot: number; readonly index: Index })
  | (Typed & { readonly op: "unary"; readonly kind: UnaryKind; readonly x: Expr })
  | (Typed & { readonly op: "binary"; readonly kind: BinaryKind; readonly a: Expr; readonly b: Expr })
  | (Typed & { readonly op: "select"; readonly condition: Expr; readonly a: Expr; readonly b: Expr })
  | (Typed & { readonly op: "cast"; readonly x: Expr })
  | (Typed & { readonly op: "accumulator"; readonly index: number })
  | (Facts & {
      readonly op: "random";
      readonly dtype: "u32";
      readonly key0: Expr;
      readonly key1: Expr;
      readonly stream: Expr;
      readonly index: Index;
    });

/** Smallest and largest value of an index. */
export interface Range {
  readonly low: number;
  readonly high: number;
}

/** True for index arithmetic, whose range is known and which cannot overflow. */
export function isIndex(expr: Expr): expr is Index {
  return expr.op === "variable" || expr.op === "index" || expr.op === "given" || (expr.op === "const" && expr.dtype === "i32");
}

const accumulatorBit = 1 << 31;

/** Interning makers for one kernel or plan: of indices, and of the user's values. */
export class ExprMakers {
  readonly #interned = new Map<string, Expr>();
  readonly #ids = new Map<Expr, number>();
  readonly #bounds: ReadonlyMap<number, Range>;

  /** `bounds` narrows what variables take, by axis: conditions and clamps that are constant within it fold away. */
  constructor(bounds: ReadonlyMap<number, Range> = new Map()) {
    this.#bounds = bounds;
  }

  #intern<T extends Expr>(key: string, make: () => T): T {
    const found = this.#interned.get(key);
    // The key names the operation, so that what it finds is of the type that was asked for.
    if (found) return found as T;
    const made = make();
    this.#interned.set(key, made);
    this.#ids.set(made, this.#ids.size);
    return made;
  }

  #id(expr: Expr): number {
    const id = this.#ids.get(expr);
    if (id === undefined) throw new Error("Expr: an expression of another maker was used. Build each kernel with one ExprMakers.");
    return id;
  }

  /** A text that is equal exactly for equal lists of expressions. */
  key(exprs: readonly Expr[]): string {
    return exprs.map((expr) => this.#id(expr)).join();
  }

  // Index arithmetic.

  int(value: number): Index {
    return this.#intern(`ci32${value | 0}`, () => ({
      op: "const",
      dtype: "i32",
      axes: 0,
      value: value | 0,
      low: value | 0,
      high: value | 0,
    }));
  }

  variable(axis: number, size: number): Index {
    if (size === 1) return this.int(0);
    const { low, high } = this.#bounds.get(axis) ?? { low: 0, high: size - 1 };
    return this.#intern(`v${axis}:${size}`, () => ({ op: "variable", dtype: "i32", axes: 1 << axis, axis, size, low, high }));
  }

  /** A value of the user's as an index. */
  given(x: Expr): Index {
    if (isIndex(x)) return x;
    if (x.dtype !== "i32") throw new Error(`Expr: an index is i32, not ${x.dtype}.`);
    const unknown = { low: Number.NEGATIVE_INFINITY, high: Number.POSITIVE_INFINITY };
    return this.#intern(`g${this.#id(x)}`, () => ({ op: "given", dtype: "i32", axes: x.axes, x, ...unknown }));
  }

  index(kind: IndexKind, a: Index, b: Index): Index {
    const simple = simplifyIndex(this, kind, a, b);
    if (simple) return simple;
    return this.#intern(`i${kind}:${this.#id(a)}:${this.#id(b)}`, () => {
      return { op: "index", dtype: "i32", axes: a.axes | b.axes, kind, a, b, ...rangeOfIndex(kind, a, b) };
    });
  }

  add(a: Index, b: Index): Index {
    return this.index("add", a, b);
  }

  mul(a: Index, b: Index): Index {
    return this.index("mul", a, b);
  }

  // Values.

  constant(dtype: ComputeDType, value: number): Expr {
    if (dtype === "i32") return this.int(value);
    const stored = dtype === "f32" ? Math.fround(value) : dtype === "u32" ? value >>> 0 : value === 0 ? 0 : 1;
    const name = Object.is(stored, -0) ? "-0" : String(stored);
    return this.#intern(`c${dtype}${name}`, () => ({ op: "const", dtype, axes: 0, value: stored }));
  }

  load(dtype: ComputeDType, slot: number, index: Index): Expr {
    return this.#intern(`l${slot}:${this.#id(index)}`, () => ({ op: "load", dtype, axes: index.axes, slot, index }));
  }

  accumulator(dtype: ComputeDType, index: number): Expr {
    return this.#intern(`a${dtype}${index}`, () => ({ op: "accumulator", dtype, axes: accumulatorBit, index }));
  }

  random(key0: Expr, key1: Expr, stream: Expr, index: Index): Expr {
    return this.#intern(`r${this.#id(key0)}:${this.#id(key1)}:${this.#id(stream)}:${this.#id(index)}`, () => {
      return { op: "random", dtype: "u32", axes: key0.axes | key1.axes | stream.axes | index.axes, key0, key1, stream, index };
    });
  }

  unary(kind: UnaryKind, x: Expr): Expr {
    const { of, isExact } = unaryKinds[kind];
    if (x.op === "const" && (isExact || x.dtype !== "f32")) return this.constant(x.dtype, of(x.value));
    if (kind === "not" && x.op === "unary" && x.kind === "not") return x.x;
    return this.#intern(`u${kind}:${this.#id(x)}`, () => ({ op: "unary", dtype: x.dtype, axes: x.axes, kind, x }));
  }

  /** f32 to an integer truncates and takes the nearest there is, NaN gives 0; integers keep their bits. */
  cast(dtype: ComputeDType, x: Expr): Expr {
    if (x.dtype === dtype) return x;
    if (x.op === "const") {
      const isSaturating = x.dtype === "f32" && (dtype === "i32" || dtype === "u32");
      return this.constant(dtype, isSaturating ? saturated(x.value, dtype) : x.value);
    }
    return this.#intern(`t${dtype}:${this.#id(x)}`, () => ({ op: "cast", dtype, axes: x.axes, x }));
  }

  select(condition: Expr, a: Expr, b: Expr): Expr {
    if (condition.op === "const") return condition.value ? a : b;
    if (a === b) return a;
    return this.#intern(`s${this.#id(condition)}:${this.#id(a)}:${this.#id(b)}`, () => {
      return { op: "select", dtype: a.dtype, axes: condition.axes | a.axes | b.axes, condition, a, b };
    });
  }

  binary(kind: BinaryKind, a: Expr, b: Expr): Expr {
    const folded = this.#folded(kind, a, b);
    if (folded) return folded;
    const dtype = binaryResult(kind, a.dtype);
    return this.#intern(`b${kind}:${this.#id(a)}:${this.#id(b)}`, () => ({ op: "binary", dtype, axes: a.axes | b.axes, kind, a, b }));
  }

  #folded(kind: BinaryKind, a: Expr, b: Expr): Expr | null {
    if (a.op === "const" && b.op === "const") {
      const { of, isExact } = binaryKinds[kind];
      return isExact || a.dtype !== "f32" ? this.constant(binaryResult(kind, a.dtype), of(a.value, b.value, a.dtype)) : null;
    }
    // Which of two indices is the smaller may follow from their ranges.
    if (isIndex(a) && isIndex(b)) {
      const outcome = simplifyComparison(kind, a, b);
      if (outcome !== null) return this.constant("bool", outcome ? 1 : 0);
    }
    // As in the graph: x + 0 is x, though it would turn −0 into 0. Sums of padded tensors are full of it.
    if (kind === "add" && a.dtype !== "bool") {
      if (a.op === "const" && a.value === 0) return b;
      if (b.op === "const" && b.value === 0) return a;
    }
    if (a.dtype === "bool" && (kind === "and" || kind === "or")) {
      for (const [x, y] of [
        [a, b],
        [b, a],
      ] as const) {
        if (x.op === "const") return (kind === "and") === (x.value === 1) ? y : x;
      }
      if (a === b) return a;
    }
    return null;
  }
}

function saturated(value: number, dtype: "i32" | "u32"): number {
  const [low, high] = dtype === "i32" ? [-(2 ** 31), 2 ** 31 - 1] : [0, 2 ** 32 - 1];
  return Number.isNaN(value) ? 0 : Math.min(Math.max(Math.trunc(value), low), high);
}

/** The expressions that an expression reads directly. */
export function operandsOf(expr: Expr): readonly Expr[] {
  switch (expr.op) {
    case "const":
    case "variable":
    case "accumulator":
      return [];
    case "load":
      return [expr.index];
    case "unary":
    case "cast":
    case "given":
      return [expr.x];
    case "binary":
    case "index":
      return [expr.a, expr.b];
    case "select":
      return [expr.condition, expr.a, expr.b];
    case "random":
      return [expr.key0, expr.key1, expr.stream, expr.index];
  }
}

/** Every expression that the roots need, each once, operands before what reads them; not behind (and not) those of `known`. */
export function expressionsBelow(roots: readonly Expr[], known?: { has(expr: Expr): boolean }): Set<Expr> {
  const found = new Set<Expr>();
  const stack = [...roots].reverse();
  while (stack.length > 0) {
    const expr = stack[stack.length - 1] as Expr;
    const before = stack.length;
    if (!found.has(expr) && !known?.has(expr)) {
      for (const operand of operandsOf(expr)) if (!found.has(operand) && !known?.has(operand)) stack.push(operand);
      if (stack.length > before) continue;
      found.add(expr);
    }
    stack.pop();
  }
  return found;
}

/** How many elements an index moves when variable `axis` grows by one; null when it is not linear in it. */
export function strideOf(expr: Expr, axis: number): number | null {
  if (isInvariant(expr, axis)) return 0;
  if (expr.op === "variable") return 1;
  if (expr.op !== "index" || (expr.kind !== "add" && expr.kind !== "sub" && expr.kind !== "mul")) return null;
  const a = strideOf(expr.a, axis);
  if (a === null) return null;
  if (expr.kind === "mul") return expr.b.op === "const" ? a * expr.b.value : null;
  const b = strideOf(expr.b, axis);
  return b === null ? null : expr.kind === "add" ? a + b : a - b;
}

/** True when the expression's value cannot change with variable `axis`. */
export function isInvariant(expr: Expr, axis: number): boolean {
  return (expr.axes & (1 << axis)) === 0;
}
