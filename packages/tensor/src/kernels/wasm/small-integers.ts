import type { DType } from "../../tensor/dtype.js";
import type { Expr, Range } from "../expr.js";
import type { Slot } from "../kernel.js";

/**
 * What a value is in terms of bytes. A sixteenth of a vector's bits are enough for an integer between −128 and 127, or 0 and 255, whatever
 * type it has been given: arithmetic of such is done on sixteen lanes at once, and widened to four where something else reads it.
 */
export type ByteOperation =
  | { readonly op: "load"; readonly load: Expr & { readonly op: "load" } }
  /** Bit by bit with a number. */
  | { readonly op: "and" | "or" | "xor" | "add" | "sub" | "shr"; readonly x: Expr; readonly value: number }
  /** The same bits of another expression. */
  | { readonly op: "same"; readonly x: Expr };

export interface SmallInteger extends Range {
  readonly operation: ByteOperation;
}

/** Which expressions are integers of a byte, made of bytes in memory. */
export class SmallIntegers {
  readonly #known = new Map<Expr, SmallInteger | null>();

  constructor(readonly dtypes: (slot: Slot) => DType) {}

  /** Null for what is not known to be such a value. */
  of(expr: Expr): SmallInteger | null {
    let found = this.#known.get(expr);
    if (found === undefined) this.#known.set(expr, (found = this.#find(expr)));
    return found;
  }

  /** A small integer as another, which is not negative, plus a number. */
  based(expr: Expr): { readonly base: Expr; readonly high: number; readonly offset: number } | null {
    const small = this.of(expr);
    if (!small) return null;
    const { operation, low, high } = small;
    if (operation.op === "add" || operation.op === "sub" || operation.op === "same") {
      const below = this.based(operation.x);
      const by = operation.op === "same" ? 0 : operation.op === "add" ? operation.value : -operation.value;
      if (below) return { ...below, offset: below.offset + by };
    }
    return low < 0 ? null : { base: expr, high, offset: 0 };
  }

  #find(expr: Expr): SmallInteger | null {
    switch (expr.op) {
      case "load":
        return this.dtypes(expr.slot) === "u8" ? { low: 0, high: 255, operation: { op: "load", load: expr } } : null;
      case "cast": {
        const x = expr.dtype === "bool" ? null : this.of(expr.x);
        return x && (expr.dtype !== "u32" || x.low >= 0) ? { low: x.low, high: x.high, operation: { op: "same", x: expr.x } } : null;
      }
      case "unary":
        return expr.kind === "floor" ? this.#floor(expr.x) : null;
      case "binary":
        return expr.b.op === "const" && Number.isInteger(expr.b.value) ? this.#binary(expr, expr.b.value) : null;
      default:
        return null;
    }
  }

  /** ⌊x / 2ⁿ⌋ of f32. */
  #floor(x: Expr): SmallInteger | null {
    if (x.op !== "binary" || x.kind !== "div" || x.b.op !== "const") return this.of(x);
    return this.#quotient(x.a, x.b.value);
  }

  #quotient(x: Expr, divisor: number): SmallInteger | null {
    const small = this.of(x);
    const bits = Math.log2(divisor);
    if (!small || small.low < 0 || !Number.isInteger(bits) || bits < 0 || bits > 7) return null;
    return { low: small.low >> bits, high: small.high >> bits, operation: { op: "shr", x, value: bits } };
  }

  #binary(expr: Expr & { op: "binary" }, value: number): SmallInteger | null {
    const x = this.of(expr.a);
    if (!x) return null;
    switch (expr.kind) {
      case "add":
      case "sub": {
        const by = expr.kind === "add" ? value : -value;
        const [low, high] = [x.low + by, x.high + by];
        const fits = low >= 0 ? high <= 255 : low >= -128 && high <= 127 && expr.dtype !== "u32";
        return fits ? { low, high, operation: { op: expr.kind, x: expr.a, value } } : null;
      }
      case "and":
        return x.low >= 0 && value >= 0
          ? { low: 0, high: Math.min(x.high, value), operation: { op: "and", x: expr.a, value: value & 255 } }
          : null;
      case "or":
      case "xor":
        return x.low >= 0 && value >= 0 && value <= 255 ? { low: 0, high: 255, operation: { op: expr.kind, x: expr.a, value } } : null;
      case "shr":
        return value >= 0 && value <= 7 ? this.#quotient(expr.a, 2 ** value) : null;
      case "div":
        return expr.dtype === "f32" ? null : this.#quotient(expr.a, value);
      case "mod": {
        const isPower = value > 0 && value <= 256 && (value & (value - 1)) === 0;
        if (!isPower || x.low < 0) return null;
        return { low: 0, high: Math.min(x.high, value - 1), operation: { op: "and", x: expr.a, value: value - 1 } };
      }
      default:
        return null;
    }
  }
}
