import type { DType } from "../../tensor/dtype.js";
import { type Code, type FunctionBuilder, f32, f32x4, i32, i32x4, laneMemory, memory, op } from "./assembler.js";
import { choose } from "./math.js";

/**
 * Loads that widen stored elements to the lanes of their compute type, and stores that narrow them again (round to nearest, ties to
 * even). In a vector, a bool is a mask: all bits of its lane; a scalar bool is 0 or 1.
 */

/** Four elements at an address and the three after it. */
export function loadVector(f: FunctionBuilder, dtype: DType, address: Code, offset: number): Code {
  switch (dtype) {
    case "f32":
    case "i32":
    case "u32":
      return memory("v128.load", offset, address);
    case "bf16":
      return op("i32x4.shl", memory("v128.load16x4_u", offset, address), i32(16));
    case "f16":
      return widenF16(f, op("i32x4.shl", memory("v128.load16x4_s", offset, address), i32(13)));
    case "u8":
      return widenBytes(memory("v128.load32_zero", offset, address));
    case "bool":
      return op("i32x4.ne", widenBytes(memory("v128.load32_zero", offset, address)), i32x4(0));
  }
}

function widenBytes(bytes: Code): Code {
  return op("i32x4.extend_low_i16x8_u", op("i16x8.extend_low_i8x16_u", bytes));
}

/** Four elements of `addresses`, one a lane; fewer addresses leave the other lanes zero. */
export function loadLanes(f: FunctionBuilder, dtype: DType, addresses: readonly { address: Code; offset: number }[]): Code {
  const raw = addresses.reduce<Code>((vector, { address, offset }, lane) => {
    if (dtype === "f16" || dtype === "bf16") return laneMemory("v128.load16_lane", offset, lane * 2, address, vector);
    if (dtype === "u8" || dtype === "bool") return laneMemory("v128.load8_lane", offset, lane * 4, address, vector);
    if (lane === 0) return memory("v128.load32_zero", offset, address);
    return laneMemory("v128.load32_lane", offset, lane, address, vector);
  }, i32x4(0));
  if (dtype === "bf16") return op("i32x4.shl", raw, i32(16));
  if (dtype === "f16") return widenF16(f, op("i32x4.shr_s", op("i32x4.shl", raw, i32(16)), i32(3)));
  if (dtype === "bool") return op("i32x4.ne", raw, i32x4(0));
  return raw;
}

/** One element as a scalar of its compute type. */
export function loadScalar(f: FunctionBuilder, dtype: DType, address: Code): Code {
  switch (dtype) {
    case "f32":
      return memory("f32.load", 0, address);
    case "i32":
    case "u32":
      return memory("i32.load", 0, address);
    case "u8":
      return memory("i32.load8_u", 0, address);
    case "bool":
      return op("i32.ne", memory("i32.load8_u", 0, address), i32(0));
    case "bf16":
      return op("f32.reinterpret_i32", op("i32.shl", memory("i32.load16_u", 0, address), i32(16)));
    case "f16":
      return widenScalarF16(f, memory("i32.load16_s", 0, address));
  }
}

/**
 * f16 bits with copies of their sign above, moved to the left by 13 → f32. They leave the exponent 112 too small; a product with 2^112 sets it
 * right, subnormals included.
 */
function widenF16(f: FunctionBuilder, signedBits: Code): Code {
  const moved = f.let("v128", op("v128.and", signedBits, i32x4(0x8fffe000)));
  const exponent = i32x4(0x0f800000);
  const special = op("v128.and", op("i32x4.eq", op("v128.and", moved.get, exponent), exponent), i32x4(0x7f800000));
  return op("v128.or", op("f32x4.mul", moved.get, f32x4(2 ** 112)), special);
}

/** The same for one element; that it is infinite or no number is so rare that a branch costs nothing. */
function widenScalarF16(f: FunctionBuilder, signedBits: Code): Code {
  // Above the 15 bits of its size there are copies of the sign, of which one stays.
  const moved = f.let("i32", op("i32.and", op("i32.shl", signedBits, i32(13)), i32(0x8fffe000)));
  const value = f.let("f32", op("f32.mul", op("f32.reinterpret_i32", moved.get), f32(2 ** 112)));
  f.if(op("i32.eq", op("i32.and", moved.get, i32(0x0f800000)), i32(0x0f800000)), () =>
    f.emit(value.set(op("f32.reinterpret_i32", op("i32.or", op("i32.reinterpret_f32", value.get), i32(0x7f800000))))),
  );
  return value.get;
}

/** f32 lanes → bf16 bits in the low half of each lane; NaN stays NaN. */
function narrowBf16(f: FunctionBuilder, value: Code): Code {
  const x = f.let("v128", value);
  const isOdd = op("v128.and", op("i32x4.shr_u", x.get, i32(16)), i32x4(1));
  const rounded = op("i32x4.shr_u", op("i32x4.add", op("i32x4.add", x.get, i32x4(0x7fff)), isOdd), i32(16));
  const nan = op("v128.or", op("i32x4.shr_u", x.get, i32(16)), i32x4(0x40));
  return choose(op("f32x4.eq", x.get, x.get), rounded, nan);
}

/** f32 lanes → f16 bits in the low half of each lane; too large gives ∞, NaN stays NaN. */
function narrowF16(f: FunctionBuilder, value: Code): Code {
  const x = f.let("v128", value);
  const size = f.let("v128", op("v128.and", x.get, i32x4(0x7fffffff)));
  // Subnormal halves are multiples of 2^-24: adding ½, whose last place that is, rounds to them.
  const subnormal = op("i32x4.sub", op("f32x4.add", size.get, f32x4(0.5)), i32x4(0x3f000000));
  const isOdd = op("v128.and", op("i32x4.shr_u", size.get, i32(13)), i32x4(1));
  const normal = op("i32x4.shr_u", op("i32x4.add", op("i32x4.add", size.get, i32x4(0xc8000fff)), isOdd), i32(13));
  const finite = f.let("v128", choose(op("i32x4.lt_s", size.get, i32x4(0x38800000)), subnormal, normal));
  const special = choose(op("i32x4.gt_s", size.get, i32x4(0x7f800000)), i32x4(0x7e00), i32x4(0x7c00));
  const magnitude = choose(op("i32x4.ge_s", size.get, i32x4(0x47800000)), special, finite.get);
  return op("v128.or", magnitude, op("v128.and", op("i32x4.shr_u", x.get, i32(16)), i32x4(0x8000)));
}

/** The stored bits of four values, each in the low part of its 32-bit lane. */
function narrow(f: FunctionBuilder, dtype: DType, value: Code): Code {
  switch (dtype) {
    case "f32":
    case "i32":
    case "u32":
      return value;
    case "bf16":
      return narrowBf16(f, value);
    case "f16":
      return narrowF16(f, value);
    case "u8":
      return op("v128.and", value, i32x4(0xff));
    case "bool":
      return op("v128.and", value, i32x4(1));
  }
}

/** Stores four values at an address and the three after it, or only the first. */
export function storeVector(f: FunctionBuilder, dtype: DType, address: Code, offset: number, value: Code, lanes: 4 | 1): void {
  const bits = narrow(f, dtype, value);
  if (dtype === "f16" || dtype === "bf16") {
    if (lanes === 1) f.emit(laneMemory("v128.store16_lane", offset, 0, address, bits));
    else {
      const wide = f.let("v128", bits);
      f.emit(laneMemory("v128.store64_lane", offset, 0, address, op("i16x8.narrow_i32x4_u", wide.get, wide.get)));
    }
  } else if (dtype === "u8" || dtype === "bool") {
    if (lanes === 1) f.emit(laneMemory("v128.store8_lane", offset, 0, address, bits));
    else {
      const wide = f.let("v128", bits);
      const half = f.let("v128", op("i16x8.narrow_i32x4_u", wide.get, wide.get));
      f.emit(laneMemory("v128.store32_lane", offset, 0, address, op("i8x16.narrow_i16x8_u", half.get, half.get)));
    }
  } else if (lanes === 1) f.emit(laneMemory("v128.store32_lane", offset, 0, address, bits));
  else f.emit(memory("v128.store", offset, address, bits));
}

/** Stores each lane at an address of its own. */
export function storeLanes(f: FunctionBuilder, dtype: DType, addresses: readonly Code[], value: Code): void {
  const bits = f.let("v128", narrow(f, dtype, value));
  const wideLane = dtype === "f16" || dtype === "bf16" ? 2 : dtype === "u8" || dtype === "bool" ? 4 : 1;
  const name = wideLane === 2 ? "v128.store16_lane" : wideLane === 4 ? "v128.store8_lane" : "v128.store32_lane";
  for (const [lane, address] of addresses.entries()) f.emit(laneMemory(name, 0, lane * wideLane, address, bits.get));
}
