import type { ComputeDType } from "../tensor/dtype.js";

/** Functions of one value. All but `not` (bool) and `neg`, `abs` (any number) are f32 → f32. */
export type UnaryKind = "neg" | "abs" | "exp" | "log" | "sqrt" | "sin" | "cos" | "tanh" | "erf" | "floor" | "not";

/**
 * Functions of two values of one type. `lt`, `le`, `eq` give bool; `and`, `or`, `xor` take bool or integers, `shl`, `shr` integers.
 * Integer `div` and `mod` truncate toward zero; an integer divided by zero gives 0 (no trap). f32 `mod` is C's fmod.
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

/**
 * The kernel IR: a pure expression over loop variables, loads and row accumulators. The same nodes serve values and integer index
 * arithmetic (i32). Expressions are interned (see `makers` below): equal expressions are the same object, so a printer that keeps
 * a Map<Expr, local> gets common-subexpression elimination for nothing.
 *
 * - variable: loop variable `axis` of the kernel, 0 ≤ value < size.
 * - load: element `index` of slot `slot`, widened to its compute type. Always in bounds: padding clamps its index and selects.
 * - accumulator: the finished value of the kernel's reduction number `index`.
 * - random: word `index & 3` of Philox4x32-10 with counter [index >> 2, 0, stream, 0] and key [key0, key1], as u32.
 */
export type Expr =
  | { readonly op: "const"; readonly dtype: ComputeDType; readonly value: number }
  | { readonly op: "variable"; readonly dtype: "i32"; readonly axis: number; readonly size: number }
  | { readonly op: "load"; readonly dtype: ComputeDType; readonly slot: number; readonly index: Expr }
  | { readonly op: "unary"; readonly dtype: ComputeDType; readonly kind: UnaryKind; readonly x: Expr }
  | { readonly op: "binary"; readonly dtype: ComputeDType; readonly kind: BinaryKind; readonly a: Expr; readonly b: Expr }
  | { readonly op: "select"; readonly dtype: ComputeDType; readonly condition: Expr; readonly a: Expr; readonly b: Expr }
  | { readonly op: "cast"; readonly dtype: ComputeDType; readonly x: Expr }
  | { readonly op: "accumulator"; readonly dtype: ComputeDType; readonly index: number }
  | {
      readonly op: "random";
      readonly dtype: "u32";
      readonly key0: Expr;
      readonly key1: Expr;
      readonly stream: number;
      readonly index: Expr;
    };

/** Smallest and largest value of an integer expression; infinite where unknown. */
export interface Range {
  readonly low: number;
  readonly high: number;
}

/**
 * Interning makers for one kernel or plan. They fold constants and simplify index arithmetic with value ranges, so that a reshape
 * that only splits or merges axes leaves no division behind.
 */
export class ExprMakers {
  readonly #interned = new Map<string, Expr>();
  readonly #ids = new Map<Expr, number>();
  readonly #ranges = new Map<Expr, Range>();
  readonly #bounds: ReadonlyMap<number, Range>;

  /** `bounds` narrows what variables take, by axis: conditions and clamps that are constant within it fold away. */
  constructor(bounds: ReadonlyMap<number, Range> = new Map()) {
    this.#bounds = bounds;
  }

  #intern(key: string, make: () => Expr): Expr {
    const found = this.#interned.get(key);
    if (found) return found;
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

  constant(dtype: ComputeDType, value: number): Expr {
    const stored = dtype === "f32" ? Math.fround(value) : dtype === "i32" ? value | 0 : dtype === "u32" ? value >>> 0 : value === 0 ? 0 : 1;
    const name = Object.is(stored, -0) ? "-0" : String(stored);
    return this.#intern(`c${dtype}${name}`, () => ({ op: "const", dtype, value: stored }));
  }

  int(value: number): Expr {
    return this.constant("i32", value);
  }

  variable(axis: number, size: number): Expr {
    if (size === 1) return this.int(0);
    return this.#intern(`v${axis}:${size}`, () => ({ op: "variable", dtype: "i32", axis, size }));
  }

  load(dtype: ComputeDType, slot: number, index: Expr): Expr {
    return this.#intern(`l${slot}:${this.#id(index)}`, () => ({ op: "load", dtype, slot, index }));
  }

  accumulator(dtype: ComputeDType, index: number): Expr {
    return this.#intern(`a${dtype}${index}`, () => ({ op: "accumulator", dtype, index }));
  }

  random(key0: Expr, key1: Expr, stream: number, index: Expr): Expr {
    return this.#intern(`r${this.#id(key0)}:${this.#id(key1)}:${stream}:${this.#id(index)}`, () => ({
      op: "random",
      dtype: "u32",
      key0,
      key1,
      stream,
      index,
    }));
  }

  unary(kind: UnaryKind, x: Expr): Expr {
    if (x.op === "const") {
      if (kind === "neg") return this.constant(x.dtype, -x.value);
      if (kind === "not") return this.constant("bool", x.value === 0 ? 1 : 0);
    }
    if (kind === "not" && x.op === "unary" && x.kind === "not") return x.x;
    return this.#intern(`u${kind}:${this.#id(x)}`, () => ({ op: "unary", dtype: x.dtype, kind, x }));
  }

  cast(dtype: ComputeDType, x: Expr): Expr {
    if (x.dtype === dtype) return x;
    if (x.op === "const" && Number.isFinite(x.value))
      return this.constant(dtype, dtype === "f32" || dtype === "bool" ? x.value : Math.trunc(x.value));
    return this.#intern(`t${dtype}:${this.#id(x)}`, () => ({ op: "cast", dtype, x }));
  }

  select(condition: Expr, a: Expr, b: Expr): Expr {
    if (condition.op === "const") return condition.value ? a : b;
    if (a === b) return a;
    return this.#intern(`s${this.#id(condition)}:${this.#id(a)}:${this.#id(b)}`, () => ({ op: "select", dtype: a.dtype, condition, a, b }));
  }

  binary(kind: BinaryKind, a: Expr, b: Expr): Expr {
    if (a.dtype === "i32" && b.dtype === "i32") {
      const simple = this.#simplifyInteger(kind, a, b);
      if (simple) return simple;
    }
    // As in the graph: x + 0 is x, though it would turn −0 into 0. Sums of padded tensors are full of it.
    if (a.dtype === "f32" && kind === "add") {
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
    const dtype = kind === "lt" || kind === "le" || kind === "eq" ? "bool" : a.dtype;
    return this.#intern(`b${kind}:${this.#id(a)}:${this.#id(b)}`, () => ({ op: "binary", dtype, kind, a, b }));
  }

  add(a: Expr, b: Expr): Expr {
    return this.binary("add", a, b);
  }

  mul(a: Expr, b: Expr): Expr {
    return this.binary("mul", a, b);
  }

  /** Smallest and largest value that an integer expression can take. */
  range(expr: Expr): Range {
    const known = this.#ranges.get(expr);
    if (known) return known;
    const range = this.#rangeOf(expr);
    this.#ranges.set(expr, range);
    return range;
  }

  #rangeOf(expr: Expr): Range {
    const unknown = { low: Number.NEGATIVE_INFINITY, high: Number.POSITIVE_INFINITY };
    switch (expr.op) {
      case "const":
        return { low: expr.value, high: expr.value };
      case "variable":
        return this.#bounds.get(expr.axis) ?? { low: 0, high: expr.size - 1 };
      case "select": {
        const a = this.range(expr.a);
        const b = this.range(expr.b);
        return { low: Math.min(a.low, b.low), high: Math.max(a.high, b.high) };
      }
      case "binary": {
        if (expr.dtype !== "i32") return unknown;
        const a = this.range(expr.a);
        const b = this.range(expr.b);
        switch (expr.kind) {
          case "add":
            return { low: a.low + b.low, high: a.high + b.high };
          case "sub":
            return { low: a.low - b.high, high: a.high - b.low };
          case "mul": {
            const products = [a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high].map((x) => (Number.isNaN(x) ? 0 : x));
            return { low: Math.min(...products), high: Math.max(...products) };
          }
          case "div":
            if (b.low === b.high && b.low > 0) return { low: Math.trunc(a.low / b.low), high: Math.trunc(a.high / b.low) };
            return unknown;
          case "mod":
            if (b.low === b.high && b.low > 0 && a.low >= 0) return { low: 0, high: Math.min(a.high, b.low - 1) };
            return unknown;
          case "max":
            return { low: Math.max(a.low, b.low), high: Math.max(a.high, b.high) };
          case "min":
            return { low: Math.min(a.low, b.low), high: Math.min(a.high, b.high) };
          default:
            return unknown;
        }
      }
      default:
        return unknown;
    }
  }

  #simplifyInteger(kind: BinaryKind, a: Expr, b: Expr): Expr | null {
    if (a.op === "const" && b.op === "const") return this.#foldInteger(kind, a.value, b.value);
    switch (kind) {
      case "add": {
        if (a.op === "const") return a.value === 0 ? b : this.add(b, a);
        if (b.op === "const") {
          if (b.value === 0) return a;
          if (a.op === "binary" && a.kind === "add" && a.b.op === "const") return this.add(a.a, this.int(a.b.value + b.value));
        }
        // (x / c) * c + x % c = x for x ≥ 0, also inside longer sums.
        return this.#joinQuotient(a, b) ?? this.#joinQuotient(b, a);
      }
      case "sub":
        if (b.op === "const") return this.add(a, this.int(-b.value));
        if (a === b) return this.int(0);
        return null;
      case "mul":
        if (a.op === "const") return this.mul(b, a);
        if (b.op === "const") {
          if (b.value === 0) return b;
          if (b.value === 1) return a;
          if (a.op === "binary" && a.kind === "mul" && a.b.op === "const") return this.mul(a.a, this.int(a.b.value * b.value));
          if (a.op === "binary" && a.kind === "add") return this.add(this.mul(a.a, b), this.mul(a.b, b));
        }
        return null;
      case "div":
      case "mod":
        return b.op === "const" && b.value > 0 ? this.#simplifyDivision(kind, a, b.value) : null;
      case "lt": {
        const x = this.range(a);
        const y = this.range(b);
        if (x.high < y.low) return this.constant("bool", 1);
        if (x.low >= y.high) return this.constant("bool", 0);
        return null;
      }
      case "le": {
        const x = this.range(a);
        const y = this.range(b);
        if (x.high <= y.low) return this.constant("bool", 1);
        if (x.low > y.high) return this.constant("bool", 0);
        return null;
      }
      case "eq":
        return a === b ? this.constant("bool", 1) : null;
      case "max":
        if (this.range(a).low >= this.range(b).high) return a;
        return this.range(b).low >= this.range(a).high ? b : null;
      case "min":
        if (this.range(a).high <= this.range(b).low) return a;
        return this.range(b).high <= this.range(a).low ? b : null;
      default:
        return null;
    }
  }

  #foldInteger(kind: BinaryKind, a: number, b: number): Expr | null {
    switch (kind) {
      case "add":
        return this.int(a + b);
      case "sub":
        return this.int(a - b);
      case "mul":
        return this.int(Math.imul(a, b));
      case "div":
        return this.int(b === 0 ? 0 : Math.trunc(a / b));
      case "mod":
        return this.int(b === 0 ? 0 : a % b);
      case "lt":
        return this.constant("bool", a < b ? 1 : 0);
      case "le":
        return this.constant("bool", a <= b ? 1 : 0);
      case "eq":
        return this.constant("bool", a === b ? 1 : 0);
      case "max":
        return this.int(Math.max(a, b));
      case "min":
        return this.int(Math.min(a, b));
      default:
        return null;
    }
  }

  #terms(expr: Expr): Expr[] {
    return expr.op === "binary" && expr.kind === "add" ? [...this.#terms(expr.a), ...this.#terms(expr.b)] : [expr];
  }

  #sum(terms: readonly Expr[]): Expr {
    return terms.reduce((sum, term) => this.add(sum, term), this.int(0));
  }

  #joinQuotient(a: Expr, b: Expr): Expr | null {
    const terms = this.#terms(a);
    const mods = this.#terms(b);
    for (const [m, mod] of mods.entries()) {
      const scale = mod.op === "binary" && mod.kind === "mul" && mod.b.op === "const" ? mod.b.value : 1;
      const inner = scale === 1 ? mod : mod.op === "binary" ? mod.a : mod;
      if (inner.op !== "binary" || inner.kind !== "mod" || inner.b.op !== "const") continue;
      const x = inner.a;
      const divisor = inner.b.value;
      if (this.range(x).low < 0) continue;
      const wanted = this.mul(this.binary("div", x, this.int(divisor)), this.int(divisor * scale));
      const at = terms.indexOf(wanted);
      if (at < 0) continue;
      const rest = [...terms.filter((_, i) => i !== at), ...mods.filter((_, i) => i !== m), this.mul(x, this.int(scale))];
      return this.#sum(rest);
    }
    return null;
  }

  /** a / c and a % c where the multiples of c in a sum can be taken out; needs a ≥ 0 so that truncation is floor. */
  #simplifyDivision(kind: "div" | "mod", a: Expr, divisor: number): Expr | null {
    if (divisor === 1) return kind === "div" ? a : this.int(0);
    const range = this.range(a);
    if (range.low >= 0 && range.high < divisor) return kind === "div" ? this.int(0) : a;
    if (range.low < 0) return null;
    const multiples: Expr[] = [];
    const rest: Expr[] = [];
    for (const term of this.#terms(a)) {
      const factor =
        term.op === "const" ? term.value : term.op === "binary" && term.kind === "mul" && term.b.op === "const" ? term.b.value : 1;
      if (factor % divisor === 0)
        multiples.push(term.op === "const" ? this.int(factor / divisor) : this.mul((term as { a: Expr }).a, this.int(factor / divisor)));
      else rest.push(term);
    }
    const remainder = this.#sum(rest);
    if (multiples.length > 0 && this.range(remainder).low >= 0) {
      const small = this.binary(kind, remainder, this.int(divisor));
      return kind === "mod" ? small : this.add(this.#sum(multiples), small);
    }
    if (a.op === "binary" && a.b.op === "const" && a.b.value > 0) {
      if (kind === "div" && a.kind === "div") return this.binary("div", a.a, this.int(a.b.value * divisor));
      if (kind === "mod" && a.kind === "mod" && a.b.value % divisor === 0) return this.binary("mod", a.a, this.int(divisor));
    }
    return null;
  }
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
      return [expr.x];
    case "binary":
      return [expr.a, expr.b];
    case "select":
      return [expr.condition, expr.a, expr.b];
    case "random":
      return [expr.key0, expr.key1, expr.index];
  }
}

/** How many elements an integer expression moves when variable `axis` grows by one; null when it is not linear in it. */
export function strideOf(expr: Expr, axis: number): number | null {
  switch (expr.op) {
    case "const":
    case "accumulator":
      return 0;
    case "variable":
      return expr.axis === axis ? 1 : 0;
    case "binary": {
      const a = strideOf(expr.a, axis);
      const b = strideOf(expr.b, axis);
      if (a === 0 && b === 0) return 0;
      if (a === null || b === null) return null;
      if (expr.kind === "add") return a + b;
      if (expr.kind === "sub") return a - b;
      if (expr.kind === "mul" && expr.b.op === "const") return a * expr.b.value;
      return null;
    }
    default:
      return operandsOf(expr).every((operand) => strideOf(operand, axis) === 0) ? 0 : null;
  }
}

/** True when the expression's value cannot change with variable `axis`. */
export function isInvariant(expr: Expr, axis: number): boolean {
  if (expr.op === "variable") return expr.axis !== axis;
  return operandsOf(expr).every((operand) => isInvariant(operand, axis));
}
