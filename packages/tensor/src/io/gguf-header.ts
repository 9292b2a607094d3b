import { type CheckpointError, showShape } from "../tensor/errors.js";
import { type GgufType, ggufTypes } from "./gguf-types.js";
import type { ByteSource } from "./source.js";
import { Window } from "./window.js";

/** Values of one type; integers of 64 bits as bigints. */
export type GgufList =
  | readonly string[]
  | readonly boolean[]
  | readonly GgufList[]
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array;

/** What a key of the metadata stands for. Integers of 64 bits are numbers where these hold them exactly, else bigints. */
export type GgufValue = number | bigint | boolean | string | GgufList;

/** One tensor as the header describes it. */
export interface GgufEntry {
  readonly name: string;
  readonly type: GgufType;
  /** Outermost axis first, as everywhere here; the file counts from the innermost. */
  readonly shape: readonly number[];
  /** Where its bytes begin, from the start of the file. */
  readonly offset: number;
  readonly bytes: number;
}

/** The header of a GGUF file, found true to the file's length. */
export interface GgufHeader {
  readonly version: number;
  /** In the file's order. */
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly alignment: number;
  /** In the order of the bytes. */
  readonly entries: readonly GgufEntry[];
}

/** Vocabularies of 262,144 with all their merges have some 20 million bytes. */
const maxHeaderBytes = 100_000_000;
/** Values that cost more memory than their bytes: texts, truth values, lists in lists; of all metadata together. */
const maxTexts = 1 << 21;
const maxTruths = 1 << 21;
const maxLists = 1 << 16;
/** Keys and tensors: no model has a tenth of them. */
const maxKeys = 1 << 16;
const maxTensors = 1 << 18;
/** ggml's own limit is 4. */
const maxAxes = 8;
const deepest = 4;

/**
 * Reads and checks the header of a GGUF file, versions 2 and 3: every metadata type, every tensor's type, shape and range. Sizes and counts are
 * held to the file's length before memory is taken for them. Throws CheckpointError, which names the key or the tensor.
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
export async function readGgufHeader(source: ByteSource): Promise<GgufHeader> {
  const window = new Window(source, maxHeaderBytes);
  const version = await readVersion(window);
  window.what = "the header";
  const [tensorCount, keyCount] = [await window.count(), await window.count()];
  window.what = `the metadata of ${keyCount} keys`;
  // A key's length, its type and one byte; a tensor's lengths, type and offset.
  window.expect(keyCount, 13);
  within(window, keyCount, maxKeys);
  window.what = `the table of ${tensorCount} tensors`;
  window.expect(tensorCount, 24);
  within(window, tensorCount, maxTensors);
  const metadata = await readMetadata(window, keyCount);
  const alignment = metadata.get("general.alignment") ?? 32;
  if (typeof alignment !== "number" || alignment < 1 || !Number.isInteger(Math.log2(alignment)))
    throw window.wrong(`general.alignment is ${show(alignment)}, not a power of two.`, "Fetch or make the file again.");
  const table = await readTable(window, tensorCount);
  const dataStart = Math.ceil(window.position / alignment) * alignment;
  return { version, metadata, alignment, entries: placed(window, table, dataStart, alignment) };
}

async function readVersion(window: Window): Promise<number> {
  const remedy = "The file is truncated or not a GGUF file: fetch it again.";
  if (window.left < 24) throw window.wrong(`${window.left} bytes are too few for a GGUF file.`, remedy);
  if ((await window.u32()) !== 0x46554747) throw window.wrong('it does not begin with the letters "GGUF".', remedy);
  const version = await window.u32();
  if (version === 2 || version === 3) return version;
  const isSwapped = version > 0 && (version & 0xffff) === 0;
  const fact = isSwapped
    ? "it is a GGUF file of big-endian numbers, which is not read."
    : `it is a GGUF file of version ${version}, and versions 2 and 3 are read.`;
  throw window.wrong(fact, "Convert it with a current llama.cpp.");
}

async function readMetadata(window: Window, count: number): Promise<ReadonlyMap<string, GgufValue>> {
  const metadata = new Map<string, GgufValue>();
  const spent: Spent = { texts: 0, truths: 0, lists: 0 };
  for (let i = 0; i < count; i++) {
    window.what = `the metadata's key ${i + 1} of ${count}`;
    const key = await window.text();
    window.what = `the metadata "${shorten(key)}"`;
    if (metadata.has(key)) throw window.wrong(`${window.what} is there twice.`, "Make the file again.");
    const type = await window.u32();
    metadata.set(key, type === 9 ? await readList(window, spent, 1) : await readScalar(window, type));
  }
  return metadata;
}

interface Spent {
  texts: number;
  truths: number;
  lists: number;
}

/** Numbers of each type: their bytes, how one is read, and what holds many. */
const numbers: ReadonlyMap<number, NumberType> = new Map<number, NumberType>([
  [0, { width: 1, read: (view, at) => view.getUint8(at), list: Uint8Array }],
  [1, { width: 1, read: (view, at) => view.getInt8(at), list: Int8Array }],
  [2, { width: 2, read: (view, at) => view.getUint16(at, true), list: Uint16Array }],
  [3, { width: 2, read: (view, at) => view.getInt16(at, true), list: Int16Array }],
  [4, { width: 4, read: (view, at) => view.getUint32(at, true), list: Uint32Array }],
  [5, { width: 4, read: (view, at) => view.getInt32(at, true), list: Int32Array }],
  [6, { width: 4, read: (view, at) => view.getFloat32(at, true), list: Float32Array }],
  [10, { width: 8, read: (view, at) => exact(view.getBigUint64(at, true)), list: BigUint64Array }],
  [11, { width: 8, read: (view, at) => exact(view.getBigInt64(at, true)), list: BigInt64Array }],
  [12, { width: 8, read: (view, at) => view.getFloat64(at, true), list: Float64Array }],
]);

interface NumberType {
  readonly width: number;
  readonly read: (view: DataView, at: number) => number | bigint;
  readonly list: new (buffer: ArrayBufferLike, offset: number, length: number) => GgufList;
}

const exact = (value: bigint): number | bigint => (Number.isSafeInteger(Number(value)) ? Number(value) : value);

const boolType = 7;
const textType = 8;
const listType = 9;

async function readScalar(window: Window, type: number): Promise<number | bigint | boolean | string> {
  if (type === textType) return window.text();
  if (type === boolType) {
    await window.fill(1);
    return truth(
      window,
      window.take(1, (view, at) => view.getUint8(at)),
    );
  }
  const number = numbers.get(type);
  if (!number) throw unknownType(window, type);
  await window.fill(number.width);
  return window.take(number.width, number.read);
}

async function readList(window: Window, spent: Spent, depth: number): Promise<GgufList> {
  const type = await window.u32();
  const count = await window.count();
  const number = numbers.get(type);
  if (number) {
    window.expect(count, number.width);
    const bytes = await window.bytes(count * number.width);
    return new number.list(bytes.buffer, bytes.byteOffset, count);
  }
  if (type === boolType) {
    window.expect(count, 1);
    spent.truths += count;
    within(window, spent.truths, maxTruths);
    return Array.from(await window.bytes(count), (byte) => truth(window, byte));
  }
  if (type === textType) {
    window.expect(count, 8);
    spent.texts += count;
    within(window, spent.texts, maxTexts);
    const texts: string[] = [];
    for (let i = 0; i < count; i++) texts.push(window.textAtHand() ?? (await window.text()));
    return texts;
  }
  if (type !== listType) throw unknownType(window, type);
  if (depth === deepest) throw window.wrong(`${window.what} has lists in lists of more than ${deepest} levels.`, "Make the file again.");
  window.expect(count, 12);
  spent.lists += count;
  within(window, spent.lists, maxLists);
  const lists: GgufList[] = [];
  for (let i = 0; i < count; i++) lists.push(await readList(window, spent, depth + 1));
  return lists;
}

function within(window: Window, count: number, most: number): void {
  if (count > most)
    throw window.wrong(`with ${window.what} there are ${count} of its kind, above the limit of ${most}.`, "Fetch or make the file again.");
}

function truth(window: Window, byte: number): boolean {
  if (byte > 1) throw window.wrong(`${window.what} is a truth value of ${byte}, not 0 or 1.`, "Fetch the file again.");
  return byte === 1;
}

function unknownType(window: Window, type: number): CheckpointError {
  return window.wrong(`${window.what} has the unknown type ${type}.`, "Fetch the file again, or convert it with a current llama.cpp.");
}

/** Entries whose offsets count from the beginning of the data. */
async function readTable(window: Window, count: number): Promise<readonly GgufEntry[]> {
  const entries = new Map<string, GgufEntry>();
  for (let i = 0; i < count; i++) {
    window.what = `tensor ${i + 1} of ${count}`;
    const name = await window.text();
    window.what = `tensor "${shorten(name)}"`;
    if (entries.has(name)) throw window.wrong(`${window.what} is there twice.`, "Make the file again.");
    const axes = await window.u32();
    if (axes > maxAxes) throw window.wrong(`${window.what} has ${axes} axes.`, "Fetch the file again.");
    const shape: number[] = [];
    for (let axis = 0; axis < axes; axis++) shape.unshift(await window.count());
    if (!shape.every(Number.isSafeInteger)) throw window.wrong(`${window.what} has axes beyond 2^53.`, "Fetch the file again.");
    const typeId = await window.u32();
    const type = ggufTypes.get(typeId);
    if (!type)
      throw window.wrong(`${window.what} has the unknown type ${typeId}.`, "Convert the model to a type that is read, as Q4_K or Q8_0.");
    const columns = shape.at(-1) ?? 1;
    if (columns % type.blockSize !== 0)
      throw window.wrong(
        `${window.what} has rows of ${columns}, not whole blocks of ${type.name}, ${type.blockSize} each.`,
        "Make the file again.",
      );
    const bytes = (shape.reduce((product, size) => product * size, 1) / type.blockSize) * type.blockBytes;
    // What is above 2^53 may be inexact, but then it is above every file's length too.
    if (!(bytes <= window.source.byteLength))
      throw window.wrong(
        `${window.what} of shape ${showShape(shape)} in ${type.name} needs ${bytes} bytes, and the file has ${window.source.byteLength}.`,
        "Fetch the file again.",
      );
    entries.set(name, { name, type, shape, offset: await window.count(), bytes });
  }
  return [...entries.values()];
}

/** Entries with their offsets from the start of the file: aligned, within it, none over another. */
function placed(window: Window, table: readonly GgufEntry[], dataStart: number, alignment: number): readonly GgufEntry[] {
  const entries = table
    .map((entry) => ({ ...entry, offset: dataStart + entry.offset }))
    .sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  let end = dataStart;
  let last = "the header";
  for (const { name, offset, bytes } of entries) {
    const shown = `tensor "${shorten(name)}"`;
    if (offset % alignment !== 0)
      throw window.wrong(`${shown} begins at byte ${offset}, which is not a multiple of ${alignment}.`, "Fetch the file again.");
    if (offset + bytes > window.source.byteLength)
      throw window.wrong(
        `${shown} ends at byte ${offset + bytes}, and the file has ${window.source.byteLength}.`,
        "The file is truncated: fetch it again.",
      );
    if (offset < end && bytes > 0)
      throw window.wrong(`${shown} overlaps "${shorten(last)}" by ${end - offset} bytes.`, "Fetch the file again.");
    end = Math.max(end, offset + bytes);
    last = name;
  }
  return entries;
}

function show(value: GgufValue): string {
  return typeof value === "object" ? "a list" : shorten(String(value));
}

function shorten(text: string): string {
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}
