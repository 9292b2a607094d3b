import { CheckpointError, showShape } from "../tensor/errors.js";
import { type Shape, sizeOf } from "../tensor/shape.js";
import { type GgufType, ggufTypes } from "./gguf-types.js";

export type GgufNumberType = "u8" | "i8" | "u16" | "i16" | "u32" | "i32" | "f32" | "u64" | "i64" | "f64";

interface NumberType {
  readonly id: number;
  readonly width: number;
  /** Bounds of integers; null for floats. */
  readonly least: number | bigint | null;
  readonly most: number | bigint | null;
  readonly put: (view: DataView, value: number | bigint) => void;
}

/** Numbers of metadata by the format's names, with what they are stored as. */
const numberTypes: Readonly<Record<GgufNumberType, NumberType>> = {
  u8: { id: 0, width: 1, least: 0, most: 2 ** 8 - 1, put: (view, value) => view.setUint8(0, Number(value)) },
  i8: { id: 1, width: 1, least: -(2 ** 7), most: 2 ** 7 - 1, put: (view, value) => view.setInt8(0, Number(value)) },
  u16: { id: 2, width: 2, least: 0, most: 2 ** 16 - 1, put: (view, value) => view.setUint16(0, Number(value), true) },
  i16: { id: 3, width: 2, least: -(2 ** 15), most: 2 ** 15 - 1, put: (view, value) => view.setInt16(0, Number(value), true) },
  u32: { id: 4, width: 4, least: 0, most: 2 ** 32 - 1, put: (view, value) => view.setUint32(0, Number(value), true) },
  i32: { id: 5, width: 4, least: -(2 ** 31), most: 2 ** 31 - 1, put: (view, value) => view.setInt32(0, Number(value), true) },
  f32: { id: 6, width: 4, least: null, most: null, put: (view, value) => view.setFloat32(0, Number(value), true) },
  u64: { id: 10, width: 8, least: 0n, most: 2n ** 64n - 1n, put: (view, value) => view.setBigUint64(0, BigInt(value), true) },
  i64: { id: 11, width: 8, least: -(2n ** 63n), most: 2n ** 63n - 1n, put: (view, value) => view.setBigInt64(0, BigInt(value), true) },
  f64: { id: 12, width: 8, least: null, most: null, put: (view, value) => view.setFloat64(0, Number(value), true) },
};

/** A list of metadata: its elements' type with `[]` behind. */
export type GgufListToWrite =
  | { readonly type: `${GgufNumberType}[]`; readonly value: ArrayLike<number> | ArrayLike<bigint> }
  | { readonly type: "bool[]"; readonly value: readonly boolean[] }
  | { readonly type: "string[]"; readonly value: readonly string[] }
  | { readonly type: "list[]"; readonly value: readonly GgufListToWrite[] };

/** A value of metadata with its type: `{ type: "u32", value: 32 }`. */
export type GgufValueToWrite =
  | { readonly type: GgufNumberType; readonly value: number | bigint }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | GgufListToWrite;

/** A tensor of a file that is to be written. */
export interface GgufTensorToWrite {
  readonly name: string;
  /** The format's name of its type: F32, Q4_K, … */
  readonly type: string;
  /** Outermost axis first, as everywhere here. */
  readonly shape: Shape;
  /** Its bytes in order, made when its turn comes. */
  readonly chunks: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** What a GGUF file is to hold. */
export interface GgufToWrite {
  /** In the order in which it is written; by custom `general.architecture` is first. */
  readonly metadata: ReadonlyMap<string, GgufValueToWrite>;
  readonly tensors: readonly GgufTensorToWrite[];
}

const boolType = 7;
const textType = 8;
const listType = 9;
const usualAlignment = 32;
/** GGML_MAX_NAME with the zero at its end, and GGML_MAX_DIMS. */
const mostNameBytes = 63;
const mostAxes = 4;
const mostKeyBytes = 2 ** 16 - 1;

/**
 * The bytes of a GGUF file, version 3, part by part: header, metadata, the table of tensors, then one tensor after another, each asked for when its
 * turn comes and beginning at a multiple of `general.alignment` (32 when absent). Throws CheckpointError, at the first part or in the tensor
 * concerned, for what no reader takes: values out of their type's range, names that are too long or there twice, rows that are not whole
 * blocks, and a tensor that gives another number of bytes than its shape needs; a file system that writes whole files then keeps what was
 * there. `path` is for errors. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
export async function* writeGguf(path: string, { metadata, tensors }: GgufToWrite): AsyncGenerator<Uint8Array> {
  const wrong = (fact: string, remedy: string): CheckpointError => new CheckpointError(`${path}: ${fact} ${remedy}`, path);
  const alignment = alignmentOf(metadata, wrong);
  const placed = place(tensors, alignment, wrong);
  const head = new HeadWriter(wrong);
  head.bytes(new Uint8Array([0x47, 0x47, 0x55, 0x46])); // "GGUF"
  head.number("u32", 3);
  head.number("u64", tensors.length);
  head.number("u64", metadata.size);
  for (const [key, value] of metadata) head.pair(key, value);
  for (const { tensor, type, offset } of placed) {
    head.text(tensor.name);
    head.number("u32", tensor.shape.length);
    for (const size of [...tensor.shape].reverse()) head.number("u64", size);
    head.number("u32", type);
    head.number("u64", offset);
  }
  yield* head.parts();
  yield padding(head.length, alignment);
  for (const { tensor, byteCount } of placed) {
    let done = 0;
    for await (const chunk of tensor.chunks()) {
      done += chunk.byteLength;
      if (done > byteCount) break;
      yield chunk;
    }
    if (done !== byteCount)
      throw wrong(
        `tensor "${tensor.name}" of shape ${showShape(tensor.shape)} in ${tensor.type} has ${byteCount} bytes, and ${done > byteCount ? "more" : done} were given.`,
        "Nothing was written.",
      );
    yield padding(byteCount, alignment);
  }
}

type Wrong = (fact: string, remedy: string) => CheckpointError;

function alignmentOf(metadata: ReadonlyMap<string, GgufValueToWrite>, wrong: Wrong): number {
  const { type, value } = metadata.get("general.alignment") ?? { type: "u32", value: usualAlignment };
  if (type === "u32" && typeof value === "number" && value >= 8 && Number.isInteger(Math.log2(value))) return value;
  throw wrong(`general.alignment is ${String(value)} as ${type}.`, "Give a power of two of at least 8 as u32, or leave it out.");
}

/** Zeros up to the next multiple. */
function padding(length: number, alignment: number): Uint8Array {
  return new Uint8Array((alignment - (length % alignment)) % alignment);
}

interface Placed {
  readonly tensor: GgufTensorToWrite;
  /** The type's number in a file. */
  readonly type: number;
  /** From the beginning of the data. */
  readonly offset: number;
  readonly byteCount: number;
}

/** The bytes that a tensor of a type takes. */
export function ggufByteCount({ blockSize, blockBytes }: GgufType, shape: Shape): number {
  return (sizeOf(shape) / blockSize) * blockBytes;
}

function place(tensors: readonly GgufTensorToWrite[], alignment: number, wrong: Wrong): readonly Placed[] {
  const numbers = new Map([...ggufTypes].map(([id, type]) => [type.name, { id, type }]));
  const names = new Set<string>();
  let offset = 0;
  return tensors.map((tensor) => {
    const { name, shape } = tensor;
    const known = numbers.get(tensor.type);
    if (!known)
      throw wrong(`tensor "${name}" is to be ${tensor.type}, which GGUF does not have.`, `It has ${[...numbers.keys()].join(", ")}.`);
    if (names.has(name)) throw wrong(`tensor "${name}" is there twice.`, "Give each a name of its own.");
    names.add(name);
    const nameBytes = new TextEncoder().encode(name).byteLength;
    if (nameBytes === 0 || nameBytes > mostNameBytes)
      throw wrong(`the tensor's name "${name}" has ${nameBytes} bytes.`, `ggml reads names of 1 to ${mostNameBytes}.`);
    if (shape.length > mostAxes) throw wrong(`tensor "${name}" has ${shape.length} axes.`, `ggml reads up to ${mostAxes}.`);
    const columns = shape.at(-1) ?? 1;
    if (columns % known.type.blockSize !== 0)
      throw wrong(
        `tensor "${name}" has rows of ${columns}, not whole blocks of ${tensor.type}, ${known.type.blockSize} each.`,
        "Give it another type.",
      );
    const byteCount = ggufByteCount(known.type, shape);
    const own = { tensor, type: known.id, offset, byteCount };
    offset = Math.ceil((offset + byteCount) / alignment) * alignment;
    return own;
  });
}

/** Puts a file's head together. */
class HeadWriter {
  readonly #parts: Uint8Array[] = [];
  #room = new Uint8Array(2 ** 16);
  #used = 0;
  length = 0;

  constructor(readonly wrong: Wrong) {}

  *parts(): Generator<Uint8Array> {
    yield* this.#parts;
    yield this.#room.subarray(0, this.#used);
  }

  bytes(bytes: Uint8Array): void {
    if (this.#used + bytes.byteLength > this.#room.byteLength) {
      this.#parts.push(this.#room.subarray(0, this.#used));
      this.#room = new Uint8Array(Math.max(this.#room.byteLength, bytes.byteLength));
      this.#used = 0;
    }
    this.#room.set(bytes, this.#used);
    this.#used += bytes.byteLength;
    this.length += bytes.byteLength;
  }

  number(type: GgufNumberType, value: number | bigint, what = "a number"): void {
    const { width, least, most, put } = numberTypes[type];
    const isWhole = typeof value === "bigint" || Number.isInteger(value);
    if (least !== null && most !== null && !(isWhole && value >= least && value <= most))
      throw this.wrong(`${what} is ${value}, which is no ${type}.`, `Give a whole number from ${least} to ${most}.`);
    const view = new DataView(new ArrayBuffer(width));
    put(view, value);
    this.bytes(new Uint8Array(view.buffer));
  }

  text(text: string, what = "a text"): void {
    if (/\p{Surrogate}/u.test(text))
      throw this.wrong(`${what} holds half a surrogate pair, which UTF-8 does not have.`, "Give a text of whole characters.");
    const bytes = encoder.encode(text);
    this.number("u64", bytes.byteLength);
    this.bytes(bytes);
  }

  pair(key: string, given: GgufValueToWrite): void {
    if (key === "" || encoder.encode(key).byteLength > mostKeyBytes)
      throw this.wrong(`a key of the metadata has ${key.length} characters.`, `GGUF takes 1 to ${mostKeyBytes} bytes.`);
    this.text(key, `the key "${key}"`);
    const what = `the metadata "${key}"`;
    if (isList(given)) {
      this.number("u32", listType);
      this.#list(given, what);
    } else if (given.type === "bool") {
      this.number("u32", boolType);
      this.number("u8", given.value ? 1 : 0);
    } else if (given.type === "string") {
      this.number("u32", textType);
      this.text(given.value, what);
    } else {
      this.number("u32", numberTypes[given.type].id);
      this.number(given.type, given.value, what);
    }
  }

  #list(list: GgufListToWrite, what: string): void {
    const { length } = list.value;
    const head = (id: number): void => {
      this.number("u32", id);
      this.number("u64", length);
    };
    if (list.type === "bool[]") {
      head(boolType);
      this.bytes(Uint8Array.from(list.value, Number));
    } else if (list.type === "string[]") {
      head(textType);
      for (const text of list.value) this.text(text, what);
    } else if (list.type === "list[]") {
      head(listType);
      for (const inner of list.value) this.#list(inner, what);
    } else {
      const number = list.type.slice(0, -2) as GgufNumberType;
      head(numberTypes[number].id);
      for (const value of Array.from(list.value as ArrayLike<number | bigint>)) this.number(number, value, what);
    }
  }
}

const encoder = new TextEncoder();

function isList(value: GgufValueToWrite): value is GgufListToWrite {
  return value.type.endsWith("[]");
}
