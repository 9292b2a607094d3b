// Writes GGUF files (version 3, little endian), and damages them.
import { joined, mutateBytes } from "./mutate.mjs";

/** @typedef {import("./random.mjs").Random} Random */
/** @typedef {"u8" | "i8" | "u16" | "i16" | "u32" | "i32" | "f32" | "bool" | "text" | "list" | "u64" | "i64" | "f64"} Kind */
/** @typedef {{ kind: Kind, value: unknown, of?: Kind }} Value A list has the kind of its values, `of`. */
/** @typedef {{ name: string, type: number, shape: readonly number[], bytes: Uint8Array, offset?: number }} Written */
/** @typedef {{ version?: number, alignment?: number, keyCount?: number, tensorCount?: number, metadata?: readonly (readonly [string, Value])[], tensors?: readonly Written[] }} GgufParts */

/** In the order of their numbers. */
const kinds = /** @type {const} */ (["u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "text", "list", "u64", "i64", "f64"]);
const encoder = new TextEncoder();

/** @param {number} bytes @param {(view: DataView) => void} write */
function field(bytes, write) {
  const result = new Uint8Array(bytes);
  write(new DataView(result.buffer));
  return result;
}
/** @param {number} value */
const u32 = (value) => field(4, (view) => view.setUint32(0, value, true));
/** @param {number | bigint} value */
const u64 = (value) => field(8, (view) => view.setBigUint64(0, BigInt(value), true));
/** @param {string | Uint8Array} value */
function text(value) {
  const bytes = typeof value === "string" ? encoder.encode(value) : value;
  return joined(u64(bytes.length), bytes);
}

/** The values of a list, which may be those of a whole vocabulary. @param {readonly any[]} values @param {Kind} kind */
function listBytes(values, kind) {
  const parts = values.map((value) => (kind === "text" ? encoder.encode(value) : valueBytes(kind, value)));
  const lengthBytes = kind === "text" ? 8 : 0;
  const result = new Uint8Array(parts.reduce((sum, { length }) => sum + lengthBytes + length, 0));
  const view = new DataView(result.buffer);
  let offset = 0;
  for (const part of parts) {
    if (lengthBytes > 0) view.setUint32(offset, part.length, true);
    result.set(part, offset + lengthBytes);
    offset += lengthBytes + part.length;
  }
  return result;
}

/** @param {Kind} kind @param {any} value @param {Kind} [of] @returns {Uint8Array} */
function valueBytes(kind, value, of = "u8") {
  switch (kind) {
    case "u8":
    case "i8":
      return Uint8Array.of(value & 255);
    case "bool":
      return Uint8Array.of(Number(value));
    case "u16":
    case "i16":
      return field(2, (view) => view.setUint16(0, value & 0xffff, true));
    case "u32":
    case "i32":
      return u32(value >>> 0);
    case "f32":
      return field(4, (view) => view.setFloat32(0, value, true));
    case "f64":
      return field(8, (view) => view.setFloat64(0, value, true));
    case "u64":
      return u64(value);
    case "i64":
      return field(8, (view) => view.setBigInt64(0, BigInt(value), true));
    case "text":
      return text(value);
    case "list":
      // Lists in lists are of bytes.
      return joined(u32(kinds.indexOf(of)), u64(value.length), listBytes(value, of));
  }
}

/** A value of a file's metadata with its kind, as llama.cpp's converter writes it. @param {unknown} value @returns {Value} */
export function ggufValue(value) {
  if (typeof value === "string") return { kind: "text", value };
  if (typeof value === "boolean") return { kind: "bool", value };
  if (typeof value === "number") return { kind: Number.isInteger(value) ? "u32" : "f32", value };
  if (value instanceof Float32Array) return { kind: "list", of: "f32", value: [...value] };
  if (value instanceof Int32Array) return { kind: "list", of: "i32", value: [...value] };
  if (Array.isArray(value)) return { kind: "list", of: "text", value };
  throw new TypeError("No metadata is of this kind.");
}

/** @param {GgufParts} parts @returns {Uint8Array} */
export function ggufBytes({
  version = 3,
  alignment = 32,
  metadata = [],
  tensors = [],
  keyCount = metadata.length,
  tensorCount = tensors.length,
}) {
  const pairs = metadata.map(([key, { kind, value, of }]) => joined(text(key), u32(kinds.indexOf(kind)), valueBytes(kind, value, of)));
  /** @param {number} length */
  const padded = (length) => Math.ceil(length / alignment) * alignment;
  let end = 0;
  const rows = tensors.map(({ name, type, shape, bytes, offset = end }) => {
    end = padded(offset + bytes.length);
    return joined(text(name), u32(shape.length), ...[...shape].reverse().map(u64), u32(type), u64(offset));
  });
  const head = joined(encoder.encode("GGUF"), u32(version), u64(tensorCount), u64(keyCount), ...pairs, ...rows);
  const data = tensors.map(({ bytes }) => joined(bytes, new Uint8Array(padded(bytes.length) - bytes.length)));
  return joined(head, new Uint8Array(padded(head.length) - head.length), ...data);
}

/** A small file with every kind of metadata and tensors of several types. */
export const everyKind = () =>
  ggufBytes({
    metadata: [
      ["general.architecture", { kind: "text", value: "llama" }],
      ["a.u8", { kind: "u8", value: 200 }],
      ["a.i8", { kind: "i8", value: -100 }],
      ["a.u16", { kind: "u16", value: 60000 }],
      ["a.i16", { kind: "i16", value: -30000 }],
      ["a.u32", { kind: "u32", value: 4000000000 }],
      ["a.i32", { kind: "i32", value: -2000000000 }],
      ["a.f32", { kind: "f32", value: 0.15625 }],
      ["a.bool", { kind: "bool", value: true }],
      ["a.text", { kind: "text", value: "zwölf 日本語 🙂" }],
      ["a.u64", { kind: "u64", value: 9007199254740993n }],
      ["a.i64", { kind: "i64", value: -5n }],
      ["a.f64", { kind: "f64", value: Math.PI }],
      ["list.i32", { kind: "list", of: "i32", value: [1, -2, 2147483647] }],
      ["list.u64", { kind: "list", of: "u64", value: [1n, 2n ** 63n] }],
      ["list.bool", { kind: "list", of: "bool", value: [true, false, true] }],
      ["list.text", { kind: "list", of: "text", value: ["a", "", "ö b", "🙂", "a text that is longer than most"] }],
      ["list.list", { kind: "list", of: "list", value: [[1, 2], [], [3]] }],
    ],
    tensors: [
      { name: "token_embd.weight", type: 0, shape: [2, 3, 5], bytes: new Uint8Array(120).fill(1) },
      { name: "blk.0.attn_q.weight", type: 8, shape: [3, 64], bytes: new Uint8Array(204).fill(2) },
      { name: "blk.0.attn_k.weight", type: 12, shape: [1, 256], bytes: new Uint8Array(144).fill(3) },
      { name: "output_norm.weight", type: 1, shape: [7], bytes: new Uint8Array(14).fill(4) },
    ],
  });

/** Numbers that a count, a length, a type or an offset is not expected to be. */
const strange = [0n, 1n, 31n, 255n, 2n ** 16n, 2n ** 20n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 33n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n];

/**
 * A GGUF file damaged: its bytes, or 4 or 8 of its header with a number that is too large, as lengths, counts, types and offsets are.
 * @param {Uint8Array} bytes
 * @param {Random} random
 * @param {Uint8Array} [other]
 */
export function mutateGguf(bytes, random, other) {
  if (random.chance(0.4)) return mutateBytes(bytes, random, other);
  const result = bytes.slice();
  const view = new DataView(result.buffer);
  const count = random.pick([1, 1, 2]);
  for (let i = 0; i < count; i++) {
    const width = random.pick([1, 4, 8]);
    // The header lies in front.
    const at = random.below(Math.max(1, Math.min(result.length, random.pick([24, 200, 2000])) - width));
    const value = random.chance(0.3) ? BigInt(random.below(64)) : random.pick(strange);
    if (result.length < 8) return result;
    if (width === 1) view.setUint8(at, Number(value & 255n));
    else if (width === 4) view.setUint32(at, Number(value & 0xffffffffn), true);
    else view.setBigUint64(at, value, true);
  }
  return result;
}
