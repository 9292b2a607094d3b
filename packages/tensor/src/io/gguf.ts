import { blockWriter } from "../blocks/block-tensor.js";
import { blockTypes } from "../blocks/table.js";
import { fromStorage } from "../graph/create.js";
import type { Device } from "../graph/device.js";
import { eventLoopTurn, isTurnDue } from "../graph/event-loop.js";
import { Storage } from "../graph/storage.js";
import type { Tensor } from "../graph/tensor.js";
import { CheckpointError } from "../tensor/errors.js";
import { sizeOf } from "../tensor/shape.js";
import { type GgufEntry, type GgufValue, readGgufHeader } from "./gguf-header.js";
import { GgufScan } from "./gguf-scan.js";
import type { ByteSource } from "./source.js";

/** Types whose numbers stand alone, and the dtypes that they have here. */
const plain = { F32: "f32", F16: "f16", BF16: "bf16", I32: "i32" } as const;

/** An opened model of one GGUF file or several, whose headers were found sound. Nothing of its tensors is read yet. */
export interface GgufFile {
  readonly name: string;
  /** The first file's. */
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** By name, in the order of the files and of their bytes. */
  readonly entries: ReadonlyMap<string, GgufEntry>;
  /** A tensor's bytes as they are stored. Rejects with CheckpointError where there is none of that name, or the file has become shorter. */
  bytes(name: string): Promise<Uint8Array>;
  /**
   * A tensor's bytes as they are stored, in order, some at a time: whole blocks of its type. They are the caller's until it asks for the next.
   * Rejects as `bytes` does.
   */
  chunks(name: string): AsyncGenerator<Uint8Array>;
  /** Hands a tensor's bytes to `take` as `chunks` gives them, and gives their digest. Rejects also where a number or a block's scale is not finite. */
  stream(name: string, take: (bytes: Uint8Array) => void): Promise<string>;
  /**
   * Puts a tensor onto a device, in the type that it is stored in: one of blocks as a packed tensor. Rejects with CheckpointError, as `bytes` does,
   * and where its type is none that is read, which it names.
   */
  weight(name: string, options: { readonly device: Device }): Promise<Tensor>;
  close(): Promise<void>;
}

/** Opens the file that stands beside the first under a name; null where there is none. */
type OpenPart = (name: string) => Promise<ByteSource | null>;

/** llama.cpp splits no model into more. */
const maxParts = 10_000;

/**
 * Opens a GGUF model, reading headers only. Where the file is the first of several (`split.count`, name-00001-of-00003.gguf), the others are opened by
 * `open`, which takes their names. Rejects with CheckpointError when a file is not what it claims, when one is missing, or is not of the same model.
 */
export async function readGguf(source: ByteSource, open: OpenPart = async () => null): Promise<GgufFile> {
  const sources = [source];
  try {
    const { metadata, entries: first } = await readGgufHeader(source);
    const entries = new Map<string, GgufEntry>();
    const home = new Map<string, ByteSource>();
    const include = (part: ByteSource, list: readonly GgufEntry[]): void => {
      for (const entry of list) {
        if (entries.has(entry.name)) throw wrong(part, `tensor "${entry.name}" is in another part too.`, "Fetch all parts of one model.");
        entries.set(entry.name, entry);
        home.set(entry.name, part);
      }
    };
    include(source, first);
    for (const name of partNames(source, metadata)) {
      const part = await open(name);
      if (!part) throw wrong(source, `"${name}", another part of the model, is not beside it.`, "Fetch all parts into one folder.");
      sources.push(part);
      const header = await readGgufHeader(part);
      if (header.metadata.get("split.no") !== sources.length - 1)
        throw wrong(part, `it does not say that it is part ${sources.length}.`, "Fetch all parts of one model.");
      include(part, header.entries);
    }
    const total = metadata.get("split.tensors.count");
    if (sources.length > 1 && typeof total === "number" && total !== entries.size)
      throw wrong(source, `its parts hold ${entries.size} tensors, and it says ${total}.`, "Fetch all parts of one model.");
    const placeOf = (name: string): readonly [GgufEntry, ByteSource] => {
      const [entry, part] = [entries.get(name), home.get(name)];
      if (entry && part) return [entry, part];
      const held = [...entries.keys()];
      throw wrong(source, `there is no tensor "${name}".`, `It holds ${held.slice(0, 8).join(", ")}${held.length > 8 ? ", …" : ""}.`);
    };
    return {
      name: source.name,
      metadata,
      entries,
      bytes: async (name) => readBytes(...placeOf(name)),
      chunks: (name) => chunksOf(...placeOf(name)),
      stream: async (name, take) => stream(...placeOf(name), take),
      weight: async (name, { device }) => weightOf(...placeOf(name), device),
      close: () => closeAll(sources),
    };
  } catch (error) {
    // The first is its opener's; the parts were opened here.
    await closeAll(sources.slice(1));
    throw error;
  }
}

async function readBytes({ name, offset, bytes: length }: GgufEntry, part: ByteSource): Promise<Uint8Array> {
  const bytes = await part.read(offset, length);
  if (bytes.byteLength === length) return bytes;
  throw ended(name, part);
}

/** Bytes that are read at a time, about, and what their count of blocks is a multiple of, so that fields begin at whole words. */
const chunkBytes = 4 * 2 ** 20;
const chunkBlocks = 256;

/** Memory for chunks that nobody reads into at the moment: new pages for each tensor cost more than reading it. */
const spareRooms: Uint8Array[] = [];
const spareRoomCount = 2;

async function* chunksOf({ name, type, offset, bytes: length }: GgufEntry, part: ByteSource): AsyncGenerator<Uint8Array> {
  const unit = chunkBlocks * type.blockBytes;
  const step = Math.max(1, Math.floor(chunkBytes / unit)) * unit;
  const rooms = Array.from({ length: Math.min(2, Math.ceil(length / step)) }, () => spareRooms.pop() ?? new Uint8Array(chunkBytes));
  const read = async (at: number): Promise<Uint8Array> => {
    const count = Math.min(step, length - at);
    const room = rooms[(at / step) % 2]?.subarray(0, count);
    const bytes = await part.read(offset + at, count, room);
    if (bytes.byteLength !== count) throw ended(name, part);
    return bytes;
  };
  let next = length > 0 ? read(0) : null;
  try {
    for (let at = step; next; at += step) {
      const bytes: Uint8Array = await next;
      // A source that has everything at hand would never let the event loop in.
      if (isTurnDue()) await eventLoopTurn();
      // The disk works while this chunk is looked at.
      next = at < length ? read(at) : null;
      next?.catch(() => undefined); // told where it is awaited, which is later
      yield bytes;
    }
  } finally {
    // Nothing is read any more once whoever asked has stopped.
    await next?.catch(() => undefined);
    for (const room of rooms) if (spareRooms.length < spareRoomCount) spareRooms.push(room);
  }
}

async function stream(entry: GgufEntry, part: ByteSource, take: (bytes: Uint8Array) => void): Promise<string> {
  const scan = new GgufScan(entry, part.name);
  try {
    for await (const bytes of chunksOf(entry, part)) {
      scan.take(bytes);
      take(bytes);
    }
    return scan.digest;
  } finally {
    scan.close();
  }
}

async function weightOf(entry: GgufEntry, part: ByteSource, device: Device): Promise<Tensor> {
  const { name, type, shape } = entry;
  const blocks = blockTypes.get(type.name);
  if (blocks) {
    const writer = blockWriter(blocks, shape, device);
    try {
      let at = 0;
      for await (const bytes of chunksOf(entry, part)) {
        writer.write(bytes, at);
        at += bytes.byteLength / blocks.blockBytes;
      }
      return writer.finish();
    } catch (error) {
      writer.dispose();
      throw error;
    }
  }
  if (!Object.hasOwn(plain, type.name))
    throw wrong(
      part,
      `tensor "${name}" is ${type.name}, which is not read.`,
      `Convert the model to one of ${[...Object.keys(plain), ...blockTypes.keys()].join(", ")}.`,
    );
  const storage = new Storage(device, plain[type.name as keyof typeof plain], sizeOf(shape));
  try {
    let at = 0;
    for await (const bytes of chunksOf(entry, part)) {
      device.backend.write(storage.buffer, bytes, at);
      at += bytes.byteLength;
    }
    return fromStorage(storage, shape);
  } catch (error) {
    storage.dispose();
    throw error;
  }
}

const ended = (name: string, part: ByteSource): CheckpointError =>
  wrong(part, `the file ended inside tensor "${name}".`, "It changed while it was read: fetch it again.");

/** Names of the parts after the first. */
function partNames(source: ByteSource, metadata: ReadonlyMap<string, GgufValue>): readonly string[] {
  const [count = 1, number = 0] = [metadata.get("split.count"), metadata.get("split.no")];
  if (count === 0 || count === 1) return [];
  if (typeof count !== "number" || count > maxParts || count < 0)
    throw wrong(source, "its split.count is not a count of files.", "Fetch the file again.");
  if (number !== 0) throw wrong(source, `it is a later part of a model in ${count} files.`, "Give the first, whose name has 00001.");
  const [, stem] = /([^/\\?#]*)-00001-of-\d{5}\.gguf(?:[?#].*)?$/.exec(source.name) ?? [];
  if (stem === undefined)
    throw wrong(
      source,
      `it is the first of ${count} files, whose name does not end with -00001-of-${five(count)}.gguf.`,
      "Give all parts their own names back.",
    );
  return Array.from({ length: count - 1 }, (_, i) => `${stem}-${five(i + 2)}-of-${five(count)}.gguf`);
}

const five = (number: number): string => String(number).padStart(5, "0");

async function closeAll(sources: readonly ByteSource[]): Promise<void> {
  for (const source of sources) await source.close?.();
}

function wrong(source: ByteSource, fact: string, remedy: string): CheckpointError {
  return new CheckpointError(`${source.name}: ${fact} ${remedy}`, source.name);
}
