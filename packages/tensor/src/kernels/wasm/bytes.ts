import type { DType } from "../../tensor/dtype.js";
import type { Expr, ExprMakers, Range } from "../expr.js";
import type { Slot } from "../kernel.js";
import { type Code, i32, i32x4, interleave, type Local, memory, op } from "./assembler.js";
import { SmallIntegers } from "./small-integers.js";
import type { LinearAddress, Position, Scope } from "./values.js";

/** Units whose small integers fill one vector of bytes. */
const unitsOfBytes = 4;

/** Bytes of all units of a step, and halves of them as vectors of i16. */
export interface ByteScope {
  readonly bytes: Map<Expr, Local>;
  readonly low: Map<Expr, Local>;
  readonly high: Map<Expr, Local>;
}

/** What the code of bytes needs of that of all values. */
export interface ByteHost {
  /** True when a value differs between lanes. */
  isLanewise(expr: Expr): boolean;
  scopeOf(expr: Expr, at: Position): Scope;
  /** Computes a value once, into a local of its scope. */
  keep(known: Map<Expr, Local>, expr: Expr, scope: Scope, at: Position, type: "v128", make: () => Code): Code;
  /** Null where lanes do not lie alike apart. */
  addressOf(load: Expr & { readonly op: "load" }, at: Position): LinearAddress | null;
}

/** Writes the code of small integers: sixteen at a time, as bytes, of which other values take four as they need them. */
export class ByteValues {
  readonly small: SmallIntegers;

  constructor(
    readonly host: ByteHost,
    dtypes: (slot: Slot) => DType,
  ) {
    this.small = new SmallIntegers(dtypes);
  }

  /** The bytes of all units of a small integer; null where it is not one, or its bytes do not lie side by side. */
  #bytes(expr: Expr, at: Position): Code | null {
    const { host } = this;
    if (at.lanes !== 4 || at.units !== unitsOfBytes || !host.isLanewise(expr)) return null;
    const operation = this.small.of(expr)?.operation;
    if (!operation) return null;
    const scope = host.scopeOf(expr, at);
    const { bytes } = scope;
    const known = bytes.get(expr);
    if (known) return known.get;
    if (operation.op === "load") {
      const found = host.addressOf(operation.load, at);
      return found?.laneBytes === 1
        ? host.keep(bytes, expr, scope, at, "v128", () => memory("v128.load", found.offset, found.address))
        : null;
    }
    const x = this.#bytes(operation.x, at);
    if (!x || operation.op === "same") return x;
    return host.keep(bytes, expr, scope, at, "v128", () => byteOperation(operation.op, x, operation.value));
  }

  /** A unit of a value that is made of bytes; null for all others. */
  unit(expr: Expr, unit: number, at: Position): Code | null {
    return this.#widened(expr, unit, at) ?? this.#inTopByte(expr, unit, at) ?? this.#inFraction(expr, unit, at);
  }

  /**
   * A unit of the numbers that `asFraction` makes of small integers. Two interleavings make four of them of bytes, where an integer takes a
   * conversion besides; and one constant serves for all, so that a loop over columns has registers for its sums. What is added up is some ten
   * times as large as with the integers around 0, and so are rounding errors.
   */
  #inFraction(expr: Expr, unit: number, at: Position): Code | null {
    const integer = fractionOf(expr);
    const small = integer && this.small.of(integer.x);
    if (!small || small.low < 0 || small.high >= 2 ** integer.bits) return null;
    const { x, bits } = integer;
    if (!this.#bytes(x, at)) return null;
    const { host } = this;
    const scope = host.scopeOf(expr, at);
    const seconds = host.keep(scope.bytes, expr, scope, at, "v128", () => this.#shifted(x, bits, at));
    const which = unit < 2 ? "low" : "high";
    const tops = host.keep(scope[which], expr, scope, at, "v128", () => interleave(1, which, seconds, splatByte(topByte(bits))));
    // Twice the same takes no register of zeros.
    return interleave(2, unit % 2 === 0 ? "low" : "high", tops, tops);
  }

  /** The bytes of an integer of `bits` bits as second bytes of fractions. Where it is bits of another, in one shift with that. */
  #shifted(integer: Expr, bits: number, at: Position): Code {
    const by = 6 - bits;
    let [x, mask, moved] = [integer, 2 ** bits - 1, by];
    for (;;) {
      const operation = this.small.of(x)?.operation;
      if (operation?.op === "and") mask &= operation.value;
      else if (operation?.op !== "same" && operation?.op !== "shr") break;
      ({ x } = operation);
      if (operation.op !== "shr") continue;
      mask &= 255 >> operation.value;
      moved -= operation.value;
      break;
    }
    const bytes = this.#bytes(x, at) ?? []; // what an integer of bytes is made of has bytes
    const shifted = moved === 0 ? bytes : op(moved > 0 ? "i16x8.shl" : "i16x8.shr_u", bytes, i32(Math.abs(moved)));
    return op("v128.and", shifted, splatByte(mask << by));
  }

  /**
   * A unit of a small integer, shifted into the top byte of each lane: one instruction brings it there, where widening takes up to four. Null
   * for everything else.
   */
  #inTopByte(expr: Expr, unit: number, at: Position): Code | null {
    if (expr.op !== "binary" || expr.kind !== "shl" || expr.b.op !== "const" || expr.b.value !== 24) return null;
    const bytes = this.#bytes(expr.a, at);
    if (!bytes) return null;
    // 128 is a place outside the bytes, which gives 0.
    const place = (lane: number): number => ((unit * 4 + lane) << 24) | 0x808080;
    return op("i8x16.swizzle", bytes, i32x4(place(0), place(1), place(2), place(3)));
  }

  /** A unit of a small integer, from its bytes. */
  #widened(expr: Expr, unit: number, at: Position): Code | null {
    const bytes = this.#bytes(expr, at);
    if (!bytes) return null;
    const { host } = this;
    const sign = (this.small.of(expr)?.low ?? 0) < 0 ? "s" : "u";
    const scope = host.scopeOf(expr, at);
    const which = unit < 2 ? "low" : "high";
    const half = host.keep(scope[which], expr, scope, at, "v128", () => op(`i16x8.extend_${which}_i8x16_${sign}`, bytes));
    const lanes = op(`i32x4.extend_${unit % 2 === 0 ? "low" : "high"}_i16x8_${sign}`, half);
    return expr.dtype === "f32" ? op("f32x4.convert_i32x4_s", lanes) : lanes;
  }
}

/** Bits that an integer may have to be made a fraction of: with more the second byte has no room, with fewer the exponent grows small. */
export const fractionBits: Range = { low: 4, high: 6 };

/** The byte in front of the fraction, with the bits of the mask of the byte behind it, whose first two bits are 0. */
const topByte = (bits: number): number => ((2 ** bits - 1) << (6 - bits)) & 255;

/**
 * The f32 whose bytes, from the top, are that of `topByte` and that of an integer q of so many bits, and both again: start + q · step, between
 * a power of two and 1.5 times that.
 */
export function fractionSteps(bits: number): { readonly start: number; readonly step: number } {
  const power = 2 ** (topByte(bits) * 2 - 127);
  return { start: power * (1 + topByte(bits) * 2 ** -15), step: power * 2 ** (6 - bits) * (2 ** -7 + 2 ** -23) };
}

/** That number, exactly, as other code computes it. */
export function asFraction(make: ExprMakers, q: Expr, bits: number): Expr {
  const { start, step } = fractionSteps(bits);
  return make.binary("add", make.binary("mul", make.cast("f32", q), make.constant("f32", step)), make.constant("f32", start));
}

function fractionOf(expr: Expr): { readonly x: Expr; readonly bits: number } | null {
  if (expr.op !== "binary" || expr.kind !== "add" || expr.b.op !== "const") return null;
  const { a, b } = expr;
  if (a.op !== "binary" || a.kind !== "mul" || a.dtype !== "f32" || a.b.op !== "const") return null;
  for (let bits = fractionBits.low; bits <= fractionBits.high; bits++) {
    const { start, step } = fractionSteps(bits);
    if (b.value === start && a.b.value === step) return { x: a.a, bits };
  }
  return null;
}

const splatByte = (byte: number): Code => i32x4(Math.imul(byte & 255, 0x01010101));

/** Sixteen bytes and a number, byte by byte. */
function byteOperation(kind: "and" | "or" | "xor" | "add" | "sub" | "shr", x: Code, value: number): Code {
  const splat = splatByte;
  if (kind === "add" || kind === "sub") return op(`i8x16.${kind}`, x, splat(value));
  if (kind !== "shr") return op(`v128.${kind}`, x, splat(value));
  // There is no shift of bytes: what comes in from the neighbour is cleared.
  return value === 0 ? x : op("v128.and", op("i16x8.shr_u", x, i32(value)), splat(255 >> value));
}
