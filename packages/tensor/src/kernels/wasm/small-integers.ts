import { type DType, dtypeBytes } from "../../tensor/dtype.js";
import type { Expr, Range } from "../expr.js";
import type { Slot } from "../kernel.js";
import { lanePattern, laneValues, rangeOf } from "../lane-patterns.js";

type Load = Expr & { readonly op: "load" };

/** Lanes of a vector of bytes. */
const lanesOfBytes = 16;

/**
 * What a value is in terms of bytes. A sixteenth of a vector's bits are enough for an integer between −128 and 127, or 0 and 255, whatever
 * type it has been given: arithmetic of such is done on sixteen lanes at once, and widened to four where something else reads it.
 */
export type ByteOperation =
  /** The bytes of a slot of bytes that lie as its elements do. */
  | { readonly op: "load"; readonly load: Load }
  /** In each lane a byte, so many bytes after the first of what `load` reads in lane 0. */
  | { readonly op: "fetch"; readonly load: Load; readonly places: readonly number[] }
  /** Bit by bit with a number. */
  | { readonly op: "and" | "or" | "xor" | "add" | "sub" | "shl" | "shr"; readonly x: Expr; readonly value: number }
  /** Bits of what a word's byte holds. */
  | { readonly op: "field"; readonly load: Load; readonly places: readonly number[]; readonly shift: number; readonly mask: number }
  /** Moved down by as many bits in all lanes, at most 7. */
  | { readonly op: "down"; readonly x: Expr; readonly by: Expr }
  /** In each lane a bit of its own. */
  | { readonly op: "bit"; readonly x: Expr; readonly places: readonly number[] }
  | { readonly op: "both"; readonly kind: "add" | "sub" | "or"; readonly x: Expr; readonly y: Expr }
  /** The same bits of another expression. */
  | { readonly op: "same"; readonly x: Expr };

export interface SmallInteger extends Range {
  readonly operation: ByteOperation;
}

/** Which expressions are integers of a byte, made of bytes in memory. */
export class SmallIntegers {
  readonly #known = new Map<Expr, SmallInteger | null>();

  /** Where lanes of a variable are sixteen, `laneAxis` says which variable: bytes may then lie otherwise than side by side. */
  constructor(
    readonly dtypes: (slot: Slot) => DType,
    readonly laneAxis: number | null = null,
  ) {}

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

  /** Whether an integer is a byte in memory whose lanes lie side by side. */
  isInOrder(expr: Expr): boolean {
    const operation = this.of(expr)?.operation;
    if (operation?.op === "same") return this.isInOrder(operation.x);
    return operation?.op === "load" && this.#placesOf(operation.load)?.every((place, lane) => place === lane) === true;
  }

  /** For x ⊕ 128, which less 128 is x as a signed byte, x; else null. */
  asSigned(expr: Expr): Expr | null {
    const operation = this.of(expr)?.operation;
    if (operation?.op === "same") return this.asSigned(operation.x);
    return operation?.op === "xor" && operation.value === 128 ? operation.x : null;
  }

  /** What a load of a table of sixteen f32 is looked up by, where that is a small integer; null for other loads. */
  codeOf(load: Load): Expr | null {
    const { index } = load;
    if (this.dtypes(load.slot) !== "f32" || index.op !== "index" || index.kind !== "min" || index.b.op !== "const") return null;
    if (index.b.value !== lanesOfBytes - 1 || index.a.op !== "index" || index.a.kind !== "max") return null;
    const { a: given, b: least } = index.a;
    if (given.op !== "given" || least.op !== "const" || least.value !== 0) return null;
    const code = this.of(given.x);
    return code && code.low >= 0 && code.high < lanesOfBytes ? given.x : null;
  }

  /** The loads of bytes that an integer is made of; null for other values, and for integers of which lanes lie too far apart. */
  loadsOf(expr: Expr): readonly Expr[] | null {
    const operation = this.of(expr)?.operation;
    if (!operation) return null;
    switch (operation.op) {
      case "load":
        return !this.#differs(expr) || this.#placesOf(operation.load) ? [operation.load] : null;
      case "fetch":
      case "field":
        return [operation.load];
      case "both": {
        const [x, y] = [this.loadsOf(operation.x), this.loadsOf(operation.y)];
        return x && y && [...x, ...y];
      }
      default:
        return this.loadsOf(operation.x);
    }
  }

  #find(expr: Expr): SmallInteger | null {
    switch (expr.op) {
      case "load":
        return this.dtypes(expr.slot) === "u8" ? { low: 0, high: 255, operation: this.#read(expr) } : null;
      case "cast": {
        const x = expr.dtype === "bool" ? null : this.of(expr.x);
        return x && (expr.dtype !== "u32" || x.low >= 0) ? { low: x.low, high: x.high, operation: { op: "same", x: expr.x } } : null;
      }
      case "unary":
        return expr.kind === "floor" ? this.#floor(expr.x) : null;
      case "binary":
        if (expr.b.op === "const") return Number.isInteger(expr.b.value) ? this.#binary(expr, expr.b.value) : null;
        return expr.kind === "shr" ? this.#down(expr) : this.#both(expr);
      default:
        return null;
    }
  }

  #differs(expr: Expr): boolean {
    return this.laneAxis !== null && (expr.axes & (1 << this.laneAxis)) !== 0;
  }

  /** A load of bytes, which may lie in any order within a few of the first. */
  #read(load: Load): ByteOperation {
    const places = this.#differs(load) ? this.#placesOf(load) : null;
    return places?.some((place, lane) => place !== lane) ? { op: "fetch", load, places } : { op: "load", load };
  }

  /** How many bytes after those of lane 0 each lane's element begins. */
  #placesOf({ slot, index }: Load): number[] | null {
    const bytes = dtypeBytes[this.dtypes(slot)];
    const pattern = this.laneAxis === null ? null : lanePattern(index, this.laneAxis, lanesOfBytes);
    const places = pattern?.map((offset) => offset * bytes) ?? null;
    return places && spanOf(places, 1) !== null ? places : null;
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

  #product(x: Expr, factor: number): SmallInteger | null {
    const small = this.of(x);
    const bits = Math.log2(factor);
    if (!small || small.low < 0 || !Number.isInteger(bits) || bits < 0 || bits > 7 || small.high << bits > 255) return null;
    return { low: small.low << bits, high: small.high << bits, operation: { op: "shl", x, value: bits } };
  }

  /** x moved down by what is the same in all lanes. */
  #down({ a, b }: Expr & { op: "binary" }): SmallInteger | null {
    const x = this.of(a);
    const by = x && x.low >= 0 && !this.#differs(b) ? rangeOf(b) : null;
    return x && by && by.low >= 0 && by.high <= 7 ? { low: 0, high: x.high >> by.low, operation: { op: "down", x: a, by: b } } : null;
  }

  #both({ kind, a, b, dtype }: Expr & { op: "binary" }): SmallInteger | null {
    if (kind !== "add" && kind !== "sub" && kind !== "or") return null;
    const [x, y] = [this.of(a), this.of(b)];
    if (!x || !y) return null;
    const operation: ByteOperation = { op: "both", kind, x: a, y: b };
    if (kind === "or") return x.low >= 0 && y.low >= 0 ? { low: 0, high: 255, operation } : null;
    const [low, high] = kind === "add" ? [x.low + y.low, x.high + y.high] : [x.low - y.high, x.high - y.low];
    return fits(low, high, dtype) ? { low, high, operation } : null;
  }

  #binary(expr: Expr & { op: "binary" }, value: number): SmallInteger | null {
    if (expr.kind === "and") {
      const bits = this.#bits(expr, value);
      if (bits) return bits;
    }
    const x = this.of(expr.a);
    if (!x) return null;
    switch (expr.kind) {
      case "add":
      case "sub": {
        const by = expr.kind === "add" ? value : -value;
        const [low, high] = [x.low + by, x.high + by];
        return fits(low, high, expr.dtype) ? { low, high, operation: { op: expr.kind, x: expr.a, value } } : null;
      }
      case "and":
        return x.low >= 0 && value >= 0
          ? { low: 0, high: Math.min(x.high, value), operation: { op: "and", x: expr.a, value: value & 255 } }
          : null;
      case "or":
      case "xor":
        return x.low >= 0 && value >= 0 && value <= 255 ? { low: 0, high: 255, operation: { op: expr.kind, x: expr.a, value } } : null;
      case "mul":
        return this.#product(expr.a, value);
      case "shl":
        return value >= 0 && value <= 7 ? this.#product(expr.a, 2 ** value) : null;
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

  /** The lowest bits of what is moved down otherwise in each lane: a bit of a byte, or bits of a byte of a word. */
  #bits({ a: moved }: Expr & { op: "binary" }, mask: number): SmallInteger | null {
    if (moved.op !== "binary" || moved.kind !== "shr" || this.laneAxis === null) return null;
    const shifts = laneValues(moved.b, this.laneAxis, lanesOfBytes);
    if (!shifts || mask < 0 || (mask & (mask + 1)) !== 0) return null;
    const x = this.of(moved.a);
    if (x) {
      const isBit = mask === 1 && this.#differs(moved.b) && x.low >= 0 && shifts.every((shift) => shift >= 0 && shift <= 7);
      return isBit ? { low: 0, high: 1, operation: { op: "bit", x: moved.a, places: shifts } } : null;
    }
    if (moved.a.op !== "load" || dtypeBytes[this.dtypes(moved.a.slot)] !== 4 || moved.a.dtype === "f32" || mask > 255) return null;
    if (!this.#differs(moved.a)) return null;
    const pattern = lanePattern(moved.a.index, this.laneAxis, lanesOfBytes);
    const shift = (shifts[0] ?? 0) & 7;
    const isAlike = shifts.every((each) => each >= 0 && each < 32 && (each & 7) === shift) && mask <= 255 >> shift;
    const places = pattern?.map((offset, lane) => 4 * offset + ((shifts[lane] ?? 0) >> 3)) ?? null;
    if (!isAlike || !places || spanOf(places, 4) === null) return null;
    return { low: 0, high: mask, operation: { op: "field", load: moved.a, places, shift, mask } };
  }
}

/**
 * Bytes from the first to the last of some places, in whole elements of `grain` bytes, where that is what one load reads, or two of a whole
 * vector; else null.
 */
export function spanOf(places: readonly number[], grain: number): number | null {
  const last = places.reduce((most, place) => Math.max(most, place), 0);
  const span = Math.ceil((last + 1) / grain) * grain;
  const isRead = (span & (span - 1)) === 0 && span <= 2 * lanesOfBytes;
  return isRead && places.every((place) => place >= 0) ? span : null;
}

function fits(low: number, high: number, dtype: string): boolean {
  return low >= 0 ? high <= 255 : low >= -128 && high <= 127 && dtype !== "u32";
}
