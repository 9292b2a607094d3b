import { fromStorage } from "../graph/create.js";
import type { Device } from "../graph/device.js";
import { eventLoopTurn, isTurnDue } from "../graph/event-loop.js";
import { readBytes } from "../graph/realize.js";
import { Storage } from "../graph/storage.js";
import type { Tensor } from "../graph/tensor.js";
import { type DType, decode, dtypeBytes, encode, isFloat } from "../tensor/dtype.js";
import { CheckpointError } from "../tensor/errors.js";
import { type Shape, sizeOf } from "../tensor/shape.js";
import { refuseNotFinite, refuseOverflow, tensorDigest } from "./finite.js";
import { type BlockScales, ScaledFloats, scaledDType } from "./float8.js";
import { readHeader, type SafetensorsEntry } from "./header.js";
import { ContentScan, stagingBytes } from "./scan.js";
import type { ByteSource } from "./source.js";

/** The format's dtypes that become tensors, and as what. I64 must fit i32; F64 is rounded to f32. */
const readable = {
  F32: "f32",
  F16: "f16",
  BF16: "bf16",
  I32: "i32",
  U32: "u32",
  U8: "u8",
  BOOL: "bool",
  I64: "i32",
  F64: "f32",
} as const satisfies Record<string, DType>;

/** How tensors of each dtype are written, and their rank in the file: as the reference implementation does, wide types first. */
const written = {
  f32: { dtype: "F32", rank: 0 },
  u32: { dtype: "U32", rank: 1 },
  i32: { dtype: "I32", rank: 2 },
  bf16: { dtype: "BF16", rank: 3 },
  f16: { dtype: "F16", rank: 4 },
  u8: { dtype: "U8", rank: 5 },
  bool: { dtype: "BOOL", rank: 6 },
} as const satisfies Record<DType, { dtype: string; rank: number }>;

/** An opened safetensors file whose header was found sound. Nothing of its tensors is read yet. */
export interface SafetensorsFile {
  readonly name: string;
  /** The `__metadata__` map; {"format": "pt"} in files for transformers. */
  readonly metadata: Readonly<Record<string, string>>;
  /** By name, in the order of the file. */
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  /**
   * Reads one tensor onto a device, in the file's dtype or in the one asked for.
   * Rejects with CheckpointError when there is none of that name, its dtype has no counterpart, or an I64 value does not fit i32.
   */
  tensor(name: string, options: { readonly device: Device; readonly dtype?: DType }): Promise<Tensor>;
  /**
   * As `tensor`, of what is to be computed with: rejects with CheckpointError also where an element is infinite or NaN, in the file or in the
   * dtype asked for. Beside it the digest of dtype, shape and bytes, found in the same pass. One at a time is fastest. F8_E4M3 is read where its
   * `scales` are given, as bf16 unless another dtype is asked for.
   */
  weight(
    name: string,
    options: { readonly device: Device; readonly dtype?: DType; readonly scales?: BlockScales },
  ): Promise<{ readonly tensor: Tensor; readonly digest: string }>;
  /** As `weight`, into a storage of its dtype that several weights make together, from element `at` on. Gives the digest. */
  weightInto(name: string, storage: Storage, at: number, scales?: BlockScales): Promise<string>;
  /**
   * As `weight`, where the numbers themselves are wanted and no tensor: `take` is given all in order, as f32, some at a time, which are its own until it
   * returns. Gives the digest.
   */
  weightNumbers(name: string, take: (values: Float32Array) => void, scales?: BlockScales): Promise<string>;
  /** The digest that `weight` gives, where the tensor itself is not wanted. Rejects as `weight` does. */
  digest(name: string): Promise<string>;
  /** Hands a tensor's bytes to `take`, part by part, each with its place among them, whatever the dtype is. Gives the digest. */
  stream(name: string, take: (bytes: Uint8Array, at: number) => void): Promise<string>;
  /** Reads one tensor's elements as numbers: f16 and bf16 widened, I64 checked to fit 53 bits. */
  values(name: string): Promise<Float64Array>;
  close(): Promise<void>;
}

/** Opens a safetensors file: reads and checks its header only. Rejects with CheckpointError when it is not what it claims. */
export async function readSafetensors(source: ByteSource): Promise<SafetensorsFile> {
  const { metadata, entries } = await readHeader(source);
  const byName = new Map(entries.map((entry) => [entry.name, entry]));
  const entryOf = (name: string): SafetensorsEntry => {
    const entry = byName.get(name);
    if (!entry)
      throw new CheckpointError(
        `${source.name}: there is no tensor "${name}". It holds ${[...byName.keys()].slice(0, 8).join(", ")}${byName.size > 8 ? ", …" : ""}.`,
        source.name,
      );
    return entry;
  };
  return {
    name: source.name,
    metadata,
    entries: byName,
    tensor: async (name, { device, dtype }) => readTensor(source, entryOf(name), device, dtype),
    weight: async (name, { device, dtype, scales }) => {
      const entry = entryOf(name);
      const scan = new ContentScan(entry.dtype);
      try {
        const tensor = await readTensor(source, entry, device, dtype, scan, scales);
        return { tensor, digest: tensorDigest(entry, scan) };
      } finally {
        scan.close();
      }
    },
    weightInto: async (name, storage, at, scales) => {
      const entry = entryOf(name);
      const scan = new ContentScan(entry.dtype);
      try {
        await readInto(source, entry, storage, at, scan, scales);
        return tensorDigest(entry, scan);
      } finally {
        scan.close();
      }
    },
    weightNumbers: async (name, take, scales) => {
      const entry = entryOf(name);
      const scan = new ContentScan(entry.dtype);
      try {
        await giveNumbers(source, entry, scan, take, scales);
        return tensorDigest(entry, scan);
      } finally {
        scan.close();
      }
    },
    digest: async (name) => {
      const entry = entryOf(name);
      const scan = new ContentScan(entry.dtype);
      try {
        for await (const { at, numbers } of chunks(source, entry, scan))
          refuseNotFinite(source.name, entry, scan, () => numbers()[(scan.firstNonFinite ?? at) - at]);
        return tensorDigest(entry, scan);
      } finally {
        scan.close();
      }
    },
    stream: async (name, take) => {
      const entry = entryOf(name);
      const scan = new ContentScan(entry.dtype);
      try {
        for await (const { at, bytes } of parts(source, entry, 1, scan)) take(bytes, at);
        return tensorDigest(entry, scan);
      } finally {
        scan.close();
      }
    },
    values: async (name) => {
      const entry = entryOf(name);
      const values = new Float64Array(sizeOf(entry.shape));
      for await (const { at, numbers } of chunks(source, entry)) values.set(numbers(), at);
      return values;
    },
    close: async () => source.close?.(),
  };
}

/** Gives a tensor's numbers on, some at a time, as f32. */
async function giveNumbers(
  source: ByteSource,
  entry: SafetensorsEntry,
  scan: ContentScan,
  take: (values: Float32Array) => void,
  scales?: BlockScales,
): Promise<void> {
  if (scales && entry.dtype === scaledDType) {
    const scaled = new ScaledFloats(source.name, entry, scales);
    for await (const { at, bytes } of parts(source, entry, 1, scan)) take(Float32Array.from(scaled.from(at, bytes)));
    return;
  }
  for await (const { at, numbers } of chunks(source, entry, scan)) {
    const values = numbers();
    refuseNotFinite(source.name, entry, scan, () => values[(scan.firstNonFinite ?? at) - at]);
    take(values instanceof Float32Array ? values : Float32Array.from(values));
  }
}

/** The dtype that a tensor of the file has on a device. Throws CheckpointError when there is none. */
export function tensorDType(entry: SafetensorsEntry, file: string): DType {
  const dtype = Object.hasOwn(readable, entry.dtype) ? readable[entry.dtype as keyof typeof readable] : undefined;
  if (!dtype) {
    throw new CheckpointError(
      `${file}: tensor "${entry.name}" is ${entry.dtype}, which cannot be read. Convert it to one of ${Object.keys(readable).join(", ")}.`,
      file,
    );
  }
  return dtype;
}

async function readTensor(
  source: ByteSource,
  entry: SafetensorsEntry,
  device: Device,
  asked: DType | undefined,
  scan: ContentScan | null = null,
  scales: BlockScales | null = null,
): Promise<Tensor> {
  const natural = scales && entry.dtype === scaledDType ? "bf16" : tensorDType(entry, source.name);
  const storage = new Storage(device, asked ?? natural, sizeOf(entry.shape));
  try {
    await readInto(source, entry, storage, 0, scan, scales);
  } catch (error) {
    storage.dispose();
    throw error;
  }
  return fromStorage(storage, entry.shape);
}

/** Reads a tensor's elements, as the storage's dtype, into part of it. */
async function readInto(
  source: ByteSource,
  entry: SafetensorsEntry,
  { device, dtype, buffer }: Storage,
  from: number,
  scan: ContentScan | null,
  scales: BlockScales | null = null,
): Promise<void> {
  if (scales && entry.dtype === scaledDType) {
    const scaled = new ScaledFloats(source.name, entry, scales);
    for await (const { at, bytes } of parts(source, entry, 1, scan)) {
      const numbers = scaled.from(at, bytes);
      const stored = encode(numbers, dtype);
      refuseOverflow(source.name, entry, at, numbers, stored, dtype);
      device.backend.write(buffer, stored, (from + at) * dtypeBytes[dtype]);
    }
    return;
  }
  const isPlain = dtype === tensorDType(entry, source.name) && entry.dtype !== "I64" && entry.dtype !== "F64" && dtype !== "bool";
  // What fits the file's dtype may be beyond the largest number of a narrower one.
  const isNarrowed = !isPlain && isFloat(dtype) && (dtype !== "f32" || entry.dtype === "F64");
  const width = dtypeBytes[dtype];
  const place = isPlain
    ? (done: number, length: number): Uint8Array | null => device.backend.place?.(buffer, length, from * width + done) ?? null
    : undefined;
  for await (const { at, bytes, numbers, isPlaced } of chunks(source, entry, scan, place)) {
    if (scan) refuseNotFinite(source.name, entry, scan, () => numbers()[(scan.firstNonFinite ?? at) - at]);
    if (isPlaced) continue;
    const stored = isPlain ? bytes : convert(bytes, numbers, entry.dtype, dtype);
    if (scan && isNarrowed) refuseOverflow(source.name, entry, at, numbers(), stored, dtype);
    device.backend.write(buffer, stored, (from + at) * width);
  }
}

function convert(bytes: Uint8Array, numbers: () => ArrayLike<number>, from: string, to: DType): Uint8Array {
  if (from === "BF16" && to === "f32") return new Uint8Array(decode(bytes, "bf16").buffer);
  return encode(numbers(), to);
}

interface Part {
  /** Index of the first element. */
  readonly at: number;
  /** Aligned to 8; valid until the next part. */
  readonly bytes: Uint8Array;
  /** Whether they lie where they were to be placed. */
  readonly isPlaced: boolean;
}

/** Where bytes of a tensor are to lie, from one of them on; null where that cannot be said. */
type Placing = (done: number, length: number) => Uint8Array | null;

interface Chunk extends Part {
  readonly numbers: () => ArrayLike<number>;
}

/** Parts of a tensor with the numbers in them. */
async function* chunks(
  source: ByteSource,
  entry: SafetensorsEntry,
  scan: ContentScan | null = null,
  place?: Placing,
): AsyncGenerator<Chunk> {
  const dtype = tensorDType(entry, source.name);
  const elementBytes = entry.dtype === "I64" || entry.dtype === "F64" ? 8 : dtypeBytes[dtype];
  for await (const part of parts(source, entry, elementBytes, scan, place))
    yield { ...part, numbers: () => numbersOf(part.bytes, entry, dtype, source.name) };
}

/** Parts of a tensor's bytes, so that a large one never lies in host memory as a whole; through the scan, if there is one. */
async function* parts(
  source: ByteSource,
  entry: SafetensorsEntry,
  elementBytes: number,
  scan: ContentScan | null,
  place?: Placing,
): AsyncGenerator<Part> {
  const pending: Reading[] = [];
  let begun = 0;
  /** Begins what may be read at a time: what goes to its place needs no room, of which there is one to spare. */
  const begin = (): void => {
    while (begun < entry.bytes && pending.length < (pending.every(({ placed }) => placed !== null) ? placedCount : 1)) {
      const length = Math.min(stagingBytes, entry.bytes - begun);
      const placed = place?.(begun, length) ?? null;
      const room = placed ? undefined : scan?.room(length);
      const part = source.read(entry.offset + begun, length, placed ?? room);
      part.catch(() => undefined); // told where it is awaited, which is later
      pending.push({ part, length, placed, room });
      begun += length;
    }
  };
  try {
    begin();
    for (let done = 0; done < entry.bytes; done += stagingBytes) {
      // A source that has everything at hand would never let the event loop in.
      if (isTurnDue()) await eventLoopTurn();
      const { part: reading, length, placed, room } = pending[0] as Reading; // as long as there are bytes, some are being read
      const part = await reading;
      pending.shift();
      // The disk works while this part is looked at.
      begin();
      if (part.byteLength !== length)
        throw new CheckpointError(
          `${source.name}: the file ended inside tensor "${entry.name}". It changed while it was read: fetch it again.`,
          source.name,
        );
      const bytes = scan?.take(part, room) ?? (part.byteOffset % 8 === 0 ? part : part.slice());
      const isPlaced = placed !== null && part.buffer === placed.buffer && part.byteOffset === placed.byteOffset;
      yield { at: done / elementBytes, bytes, isPlaced };
    }
  } finally {
    // Whoever stops early gives the memory back, into which nothing may be written then.
    await Promise.allSettled(pending.map(({ part }) => part));
  }
}

/** Parts that are read at the same time where each has its place. */
const placedCount = 3;

/** A part of a tensor that is being read. */
interface Reading {
  readonly part: Promise<Uint8Array>;
  readonly length: number;
  readonly placed: Uint8Array | null;
  readonly room: Uint8Array | undefined;
}

function numbersOf(bytes: Uint8Array, entry: SafetensorsEntry, dtype: DType, file: string): ArrayLike<number> {
  if (entry.dtype === "F64") return new Float64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8);
  if (entry.dtype !== "I64") return decode(bytes, dtype);
  return Float64Array.from(new BigInt64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8), (value) => {
    if (value !== BigInt.asIntN(32, value)) {
      throw new CheckpointError(`${file}: tensor "${entry.name}" holds ${value}, which does not fit 32 bits. Save it as I32.`, file);
    }
    return Number(value);
  });
}

/** What a file is to hold that is no tensor of a device: its bytes are made when its turn comes. */
export interface MadeTensor {
  readonly as: "F32" | "I8" | "U8";
  readonly shape: Shape;
  readonly make: () => Promise<Uint8Array>;
}

/** What is done while a file is written. */
export interface WriteOptions {
  /** Sees each tensor's bytes before they are written; what it throws ends the file there. */
  readonly onTensor?: (name: string, dtype: string, shape: Shape, bytes: Uint8Array) => void;
  /** Dtypes that tensors are written in, by name; others keep their own. */
  readonly dtypes?: ReadonlyMap<string, DType>;
  /** A tensor of bytes at the end, which are made when all others are known. */
  readonly seal?: { readonly name: string; readonly byteCount: number; readonly bytes: () => Uint8Array };
}

/**
 * The bytes of a safetensors file, part by part: the header first, then one tensor after another, each read from its device when its
 * turn comes. Canonical, byte for byte what the reference implementation writes: tensors by alignment, then by name; header padded to 8.
 */
export async function* writeSafetensors(
  tensors: ReadonlyMap<string, Tensor | MadeTensor>,
  metadata: Readonly<Record<string, string>> = {},
  { onTensor, dtypes, seal }: WriteOptions = {},
): AsyncGenerator<Uint8Array> {
  const sorted = [...tensors]
    .map(([name, t]) => ({ name, shape: t.shape, ...("make" in t ? made(t) : held(t, dtypes?.get(name))) }))
    .sort((a, b) => a.rank - b.rank || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  const header: [string, unknown][] = Object.keys(metadata).length > 0 ? [["__metadata__", metadata]] : [];
  let end = 0;
  for (const { name, dtype, shape, width } of sorted) {
    const start = end;
    end += sizeOf(shape) * width;
    header.push([name, { dtype, shape, data_offsets: [start, end] }]);
  }
  if (seal) header.push([seal.name, { dtype: "U8", shape: [seal.byteCount], data_offsets: [end, end + seal.byteCount] }]);
  // Not JSON.stringify of an object: keys that look like integers would change their order.
  const json = new TextEncoder().encode(`{${header.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join()}}`);
  const padded = Math.ceil(json.byteLength / 8) * 8;
  const head = new Uint8Array(8 + padded).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(padded), true);
  head.set(json, 8);
  yield head;
  for (const { name, dtype, shape, read } of sorted) {
    const { bytes, dispose } = await read();
    try {
      onTensor?.(name, dtype, shape, bytes);
      yield bytes;
    } finally {
      dispose?.();
    }
  }
  if (seal) yield seal.bytes();
}

/** A tensor of a file: its dtype there and the rank and width of that, and how its bytes are had. */
interface Entry {
  readonly dtype: string;
  readonly rank: number;
  readonly width: number;
  readonly read: () => Promise<{ readonly bytes: Uint8Array; readonly dispose?: () => void }>;
}

function held(t: Tensor, asked: DType | undefined): Entry {
  const dtype = asked ?? t.dtype;
  return {
    ...written[dtype],
    width: dtypeBytes[dtype],
    async read() {
      // What is converted lives until it is written, one tensor at a time.
      const converted = dtype === t.dtype ? null : t.cast(dtype);
      return { bytes: await tensorBytes(converted ?? t), dispose: () => converted?.dispose() };
    },
  };
}

function made({ as, make }: MadeTensor): Entry {
  const { rank } = written[as === "F32" ? "f32" : "u8"];
  // The reference implementation has I8 in front of U8.
  return { dtype: as, rank: as === "I8" ? rank - 0.5 : rank, width: as === "F32" ? 4 : 1, read: async () => ({ bytes: await make() }) };
}

/** A tensor's stored bytes, in its own dtype. Computes it if need be. */
export async function tensorBytes(t: Tensor): Promise<Uint8Array> {
  return t.size === 0 ? new Uint8Array(0) : readBytes(t);
}
