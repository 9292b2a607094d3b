import { showValue } from "./errors.js";

/**
 * Element types. Arithmetic happens in f32, i32, u32 and bool; f16, bf16 and u8 are storage only: a kernel widens them
 * when it loads (f16, bf16 → f32, u8 → u32) and narrows when it stores.
 */
export type DType = "f32" | "f16" | "bf16" | "i32" | "u32" | "u8" | "bool";

/** The types that arithmetic happens in. */
export type ComputeDType = "f32" | "i32" | "u32" | "bool";

/** Bytes of one stored element. */
export const dtypeBytes: Readonly<Record<DType, number>> = { f32: 4, f16: 2, bf16: 2, i32: 4, u32: 4, u8: 1, bool: 1 };

/** Throws TypeError for what is no dtype. */
export function checkDType(dtype: DType, what: string): void {
  if (!Object.hasOwn(dtypeBytes, dtype)) {
    throw new TypeError(`${what}: there is no dtype ${showValue(dtype)}. Choose among ${Object.keys(dtypeBytes).join(", ")}.`);
  }
}

/** The type in which a stored type takes part in arithmetic. */
export function computeDType(dtype: DType): ComputeDType {
  switch (dtype) {
    case "f32":
    case "f16":
    case "bf16":
      return "f32";
    case "u8":
    case "u32":
      return "u32";
    case "i32":
    case "bool":
      return dtype;
  }
}

/** True for f32, f16 and bf16. */
export function isFloat(dtype: DType): boolean {
  return computeDType(dtype) === "f32";
}

const promotionOrder: readonly ComputeDType[] = ["bool", "u32", "i32", "f32"];

/** The type of `a op b`: the wider of the two compute types in the order bool, u32, i32, f32. */
export function promote(a: DType, b: DType): ComputeDType {
  const rank = Math.max(promotionOrder.indexOf(computeDType(a)), promotionOrder.indexOf(computeDType(b)));
  return promotionOrder[rank] ?? "f32";
}

/** The typed array that `data()` returns for a type: f16 and bf16 come back widened to f32. */
export type DataOf<D extends DType> = D extends "i32"
  ? Int32Array
  : D extends "u32"
    ? Uint32Array
    : D extends "u8" | "bool"
      ? Uint8Array
      : Float32Array;

const scratch = new DataView(new ArrayBuffer(4));

/** The nearest f32 → bf16 bits, ties to even; NaN stays NaN. */
export function toBf16Bits(value: number): number {
  scratch.setFloat32(0, value);
  const bits = scratch.getUint32(0);
  if (Number.isNaN(value)) return ((bits >>> 16) | 0x40) & 0xffff;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** bf16 bits → the number they stand for. */
export function fromBf16Bits(bits: number): number {
  scratch.setUint32(0, (bits << 16) >>> 0);
  return scratch.getFloat32(0);
}

/** The nearest f16 bits, ties to even; overflow gives infinity, NaN stays NaN. */
export function toF16Bits(value: number): number {
  scratch.setFloat32(0, value);
  const bits = scratch.getUint32(0);
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Subnormal half: units of 2^-24; the product is exact in f64, so one rounding to even remains.
    const units = Math.abs(value) * 2 ** 24;
    const floor = Math.floor(units);
    const rest = units - floor;
    const rounded = rest > 0.5 || (rest === 0.5 && (floor & 1) === 1) ? floor + 1 : floor;
    return sign | rounded;
  }
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | Math.min((rounded - 0x38000000) >>> 13, 0x7c00);
}

/** f16 bits → the number they stand for. */
export function fromF16Bits(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Packs numbers into the bytes of a stored type. i32/u32/u8 wrap as typed arrays do; bool is value ≠ 0. */
export function encode(values: ArrayLike<number>, dtype: DType): Uint8Array {
  switch (dtype) {
    case "f32":
      return bytesOf(Float32Array.from(values));
    case "i32":
      return bytesOf(Int32Array.from(values));
    case "u32":
      return bytesOf(Uint32Array.from(values));
    case "u8":
      return Uint8Array.from(values);
    case "bool":
      return Uint8Array.from(values, (value) => (value === 0 ? 0 : 1));
    case "f16":
      return bytesOf(Uint16Array.from(values, toF16Bits));
    case "bf16":
      return bytesOf(Uint16Array.from(values, toBf16Bits));
  }
}

/** Unpacks stored bytes into the array that `data()` returns. */
export function decode<D extends DType>(bytes: Uint8Array, dtype: D): DataOf<D> {
  return decodeAny(bytes, dtype) as DataOf<D>;
}

function decodeAny(bytes: Uint8Array, dtype: DType): Float32Array | Int32Array | Uint32Array | Uint8Array {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const count = aligned.byteLength / dtypeBytes[dtype];
  switch (dtype) {
    case "f32":
      return new Float32Array(aligned.buffer, aligned.byteOffset, count);
    case "i32":
      return new Int32Array(aligned.buffer, aligned.byteOffset, count);
    case "u32":
      return new Uint32Array(aligned.buffer, aligned.byteOffset, count);
    case "u8":
    case "bool":
      return aligned;
    case "f16":
      return widenedF16(new Uint16Array(aligned.buffer, aligned.byteOffset, count));
    case "bf16":
      return widenedBf16(new Uint16Array(aligned.buffer, aligned.byteOffset, count));
  }
}

function widenedBf16(halves: Uint16Array): Float32Array {
  const wide = new Uint32Array(halves.length);
  for (let i = 0; i < wide.length; i++) wide[i] = (halves[i] as number) << 16; // as many
  return new Float32Array(wide.buffer);
}

function widenedF16(halves: Uint16Array): Float32Array {
  const wide = new Uint32Array(halves.length);
  const values = new Float32Array(wide.buffer);
  for (let i = 0; i < wide.length; i++) {
    const bits = halves[i] as number; // as many
    const exponent = bits & 0x7c00;
    // Normal numbers need another bias alone.
    if (exponent !== 0 && exponent !== 0x7c00) wide[i] = ((bits & 0x8000) << 16) | (((bits & 0x7fff) + 0x1c000) << 13);
    else values[i] = fromF16Bits(bits);
  }
  return values;
}

function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
