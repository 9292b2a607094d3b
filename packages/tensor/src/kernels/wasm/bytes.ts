import type { DType } from "../../tensor/dtype.js";
import type { Expr, ExprMakers, Range } from "../expr.js";
import type { Slot } from "../kernel.js";
import { type Code, type FunctionBuilder, i32, i32x4, interleave, type Local, memory, op, shuffle8 } from "./assembler.js";
import { type ByteOperation, type SmallInteger, SmallIntegers, spanOf } from "./small-integers.js";
import type { LinearAddress, Position, Scope } from "./values.js";

/** Units whose small integers fill one vector of bytes. */
const unitsOfBytes = 4;

/** Bytes of all units of a step, and halves of them as vectors of i16. */
export interface ByteScope {
  readonly bytes: Map<Expr, Local>;
  readonly low: Map<Expr, Local>;
  readonly high: Map<Expr, Local>;
  /** What was looked up, byte by byte of the entries, and pairs of these of half the lanes. */
  readonly looked: Map<Expr, readonly Local[]>;
  readonly pairsBelow: Map<Expr, readonly Local[]>;
  readonly pairsAbove: Map<Expr, readonly Local[]>;
  /** Tables of the bytes of a slot's entries. */
  readonly tables: Map<Slot, readonly Local[]>;
}

/** What the code of bytes needs of that of all values. */
export interface ByteHost {
  /** True when a value differs between lanes. */
  isLanewise(expr: Expr): boolean;
  scopeOf(expr: Expr, at: Position): Scope;
  /** Computes a value once, into a local of its scope. */
  keep(known: Map<Expr, Local>, expr: Expr, scope: Scope, at: Position, type: "v128", make: () => Code): Code;
  /** Null where lanes do not lie alike apart. */
  addressOf(load: Load, at: Position): LinearAddress | null;
  /** Where lane 0 lies. */
  firstAddress(load: Load, at: Position): { readonly address: Code; readonly offset: number };
  /** Where a slot begins. */
  startOf(slot: Slot): Code;
  scalar(expr: Expr, at: Position): Code;
}

type Load = Expr & { readonly op: "load" };

/** Writes the code of small integers: sixteen at a time, as bytes, of which other values take four as they need them. */
export class ByteValues {
  readonly small: SmallIntegers;

  /** `laneAxis` is the variable whose lanes are all units of a step, where there is one. */
  constructor(
    readonly f: FunctionBuilder,
    readonly host: ByteHost,
    dtypes: (slot: Slot) => DType,
    laneAxis: number | null,
  ) {
    this.small = new SmallIntegers(dtypes, laneAxis);
  }

  /** The bytes of all units of a small integer; null where it is not one, or its bytes are nowhere near each other. */
  #bytes(expr: Expr, at: Position): Code | null {
    if (!this.#isOfBytes(expr, at)) return null;
    const { host } = this;
    const operation = (this.small.of(expr) as SmallInteger).operation; // it is one
    if (operation.op === "same") return this.#bytes(operation.x, at);
    const scope = host.scopeOf(expr, at);
    return host.keep(scope.bytes, expr, scope, at, "v128", () => this.#made(operation, at));
  }

  #isOfBytes(expr: Expr, at: Position): boolean {
    const { host } = this;
    if (at.lanes !== 4 || at.units !== unitsOfBytes || !host.isLanewise(expr)) return false;
    const operation = this.small.of(expr)?.operation;
    if (!operation) return false;
    if (host.scopeOf(expr, at).bytes.has(expr)) return true;
    const isMade = (x: Expr): boolean => !host.isLanewise(x) || this.#isOfBytes(x, at);
    switch (operation.op) {
      case "load":
        return host.addressOf(operation.load, at)?.laneBytes === 1;
      case "fetch":
      case "field":
        return true;
      case "both":
        return isMade(operation.x) && isMade(operation.y);
      default:
        return isMade(operation.x);
    }
  }

  #made(operation: Exclude<ByteOperation, { readonly op: "same" }>, at: Position): Code {
    const { host } = this;
    switch (operation.op) {
      case "load": {
        const found = host.addressOf(operation.load, at);
        return found ? memory("v128.load", found.offset, found.address) : [];
      }
      case "fetch":
        return this.#fetched(operation.load, operation.places, 1, at);
      case "field":
        return masked(this.#fetched(operation.load, operation.places, 4, at), operation.shift, operation.mask);
      case "both":
        return op(
          operation.kind === "or" ? "v128.or" : `i8x16.${operation.kind}`,
          this.#ofAll(operation.x, at),
          this.#ofAll(operation.y, at),
        );
      case "down":
        return op("i8x16.shr_u", this.#ofAll(operation.x, at), host.scalar(operation.by, at));
      case "bit": {
        const bits = bytesOf(operation.places.map((place) => 1 << place));
        return op("v128.and", op("i8x16.eq", op("v128.and", this.#ofAll(operation.x, at), bits), bits), splatByte(1));
      }
      default:
        return byteOperation(operation.op, this.#ofAll(operation.x, at), operation.value);
    }
  }

  /** The bytes of an integer that may be the same in all lanes. */
  #ofAll(expr: Expr, at: Position): Code {
    return this.#bytes(expr, at) ?? op("i8x16.splat", this.host.scalar(expr, at));
  }

  /** Bytes at places counted from that of lane 0, of elements of `grain` bytes. */
  #fetched(load: Load, places: readonly number[], grain: number, at: Position): Code {
    const { address, offset } = this.host.firstAddress(load, at);
    const span = spanOf(places, grain) ?? 0;
    if (span > 16) {
      const halves = [0, 16].map((from) => memory("v128.load", offset + from, address)) as [Code, Code];
      return shuffle8(...halves, places);
    }
    const name =
      ({ 1: "v128.load8_splat", 2: "v128.load16_splat", 4: "v128.load32_zero", 8: "v128.load64_zero" } as const)[span] ?? "v128.load";
    const read = memory(name, offset, address);
    if (places.every((place, lane) => place === lane)) return read;
    const local = this.f.let("v128", read);
    return shuffle8(local.get, local.get, places);
  }

  /**
   * A unit of what a table of sixteen f32 has for small integers: their bytes are looked up in the four tables of the first, second, third and
   * fourth bytes of the entries, and put together.
   */
  #lookedUp(expr: Expr, unit: number, at: Position): Code | null {
    if (expr.op !== "load" || at.lanes !== 4 || at.units !== unitsOfBytes) return null;
    const code = this.small.codeOf(expr);
    if (!code || !this.#isOfBytes(code, at)) return null;
    const { f, host } = this;
    const scope = host.scopeOf(expr, at);
    const within = <K>(known: Map<K, readonly Local[]>, key: K, home: ByteScope, values: () => readonly Code[]): readonly Local[] => {
      let kept = known.get(key);
      const write = (): void => void known.set(key, (kept = values().map((value) => f.let("v128", value))));
      if (!kept) f.into(home === at.row ? at.rowCode : f.here, write);
      return kept ?? [];
    };
    const tables = within(at.row.tables, expr.slot, at.row, () => this.#tables(expr.slot).map(({ get }) => get));
    const numbers = this.#ofAll(code, at);
    const found = within(scope.looked, expr, scope, () => tables.map((table) => f.lookUp(table.get, numbers)));
    const [a, b, c, d] = found as [Local, Local, Local, Local]; // a float has four bytes
    const which = unit < 2 ? "low" : "high";
    const pairs = within(scope[which === "low" ? "pairsBelow" : "pairsAbove"], expr, scope, () => [
      interleave(1, which, a.get, b.get),
      interleave(1, which, c.get, d.get),
    ]);
    const [lower, upper] = pairs as [Local, Local]; // two pairs
    return interleave(2, unit % 2 === 0 ? "low" : "high", lower.get, upper.get);
  }

  /** The first bytes of sixteen entries, their second, third and fourth. */
  #tables(slot: Slot): Local[] {
    const { f, host } = this;
    const four = (i: number): Code => memory("v128.load", i * 16, host.startOf(slot));
    return [0, 2].flatMap((first) => {
      // Bytes `first` of eight entries, then bytes `first` + 1.
      const lanes = [0, 1].flatMap((next) => Array.from({ length: 8 }, (_, entry) => first + next + 4 * entry));
      const below = f.let("v128", shuffle8(four(0), four(1), lanes));
      const above = f.let("v128", shuffle8(four(2), four(3), lanes));
      return [0, 8].map((from) => {
        const eight = Array.from({ length: 8 }, (_, entry) => from + entry);
        return f.let("v128", shuffle8(below.get, above.get, [...eight, ...eight.map((lane) => lane + 16)]));
      });
    });
  }

  /** The first and the last eight of signed bytes that lie side by side in memory, as integers of 16 bits; null for others. */
  signedHalves(expr: Expr, at: Position): readonly [Code, Code] | null {
    const operation = this.small.of(expr)?.operation;
    if (operation?.op === "same") return this.signedHalves(operation.x, at);
    const found = operation?.op === "load" && this.#isOfBytes(expr, at) ? this.host.addressOf(operation.load, at) : null;
    if (!found) return null;
    return [memory("i16x8.load8x8_s", found.offset, found.address), memory("i16x8.load8x8_s", found.offset + 8, found.address)];
  }

  /** The bytes of all units of a small integer. Throws Error where they are not near each other. */
  all(expr: Expr, at: Position): Code {
    const bytes = this.#bytes(expr, at);
    if (!bytes) throw new Error("ByteValues: lanes of an integer lie too far apart.");
    return bytes;
  }

  /** A unit of a value that is made of bytes; null for all others. */
  unit(expr: Expr, unit: number, at: Position): Code | null {
    return (
      this.#widened(expr, unit, at) ?? this.#inTopByte(expr, unit, at) ?? this.#inFraction(expr, unit, at) ?? this.#lookedUp(expr, unit, at)
    );
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

/** A vector constant of sixteen bytes. */
function bytesOf(values: readonly number[]): Code {
  const word = (i: number): number => [3, 2, 1, 0].reduce((all, byte) => (all << 8) | ((values[i * 4 + byte] ?? 0) & 255), 0);
  return i32x4(word(0), word(1), word(2), word(3));
}

/** Bits of each byte from `shift` on. */
function masked(bytes: Code, shift: number, mask: number): Code {
  return op("v128.and", shift === 0 ? bytes : op("i16x8.shr_u", bytes, i32(shift)), splatByte(mask));
}

/** Sixteen bytes and a number, byte by byte. */
function byteOperation(kind: "and" | "or" | "xor" | "add" | "sub" | "shl" | "shr", x: Code, value: number): Code {
  const splat = splatByte;
  if (kind === "add" || kind === "sub") return op(`i8x16.${kind}`, x, splat(value));
  // What it moves stays within the byte.
  if (kind === "shl") return value === 0 ? x : op("i16x8.shl", x, i32(value));
  if (kind !== "shr") return op(`v128.${kind}`, x, splat(value));
  // There is no shift of bytes: what comes in from the neighbour is cleared.
  return value === 0 ? x : op("v128.and", op("i16x8.shr_u", x, i32(value)), splat(255 >> value));
}
