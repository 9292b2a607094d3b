import { DataError } from "./error.js";
import type { DataSource } from "./source.js";
import { partsOf } from "./source.js";
import { joined } from "./text.js";

/** The parts of a source, with its first bytes looked at. */
export interface Opened {
  /** Up to 64 KiB. */
  readonly head: Uint8Array;
  readonly parts: AsyncIterable<Uint8Array>;
}

const headBytes = 2 ** 16;

/** A source's bytes, unpacked where they are compressed by gzip or zstd. Throws DataError where what is packed is damaged. */
export async function opened(source: Exclude<DataSource, string>, path: string): Promise<Opened> {
  const raw = await peeked(partsOf(source));
  const unpack = unpackers.find(({ magic }) => magic.every((byte, i) => raw.head[i] === byte));
  return unpack ? peeked(guarded(unpack.parts(raw.parts), path)) : raw;
}

async function peeked(parts: AsyncIterable<Uint8Array>): Promise<Opened> {
  const iterator = parts[Symbol.asyncIterator]();
  const first: Uint8Array[] = [];
  for (let size = 0; size < headBytes; ) {
    const next = await iterator.next();
    if (next.done) break;
    first.push(next.value);
    size += next.value.byteLength;
  }
  async function* all(): AsyncGenerator<Uint8Array> {
    try {
      yield* first;
      for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield next.value;
    } finally {
      await iterator.return?.();
    }
  }
  return { head: joined(first.map((part) => part.subarray(0, headBytes))).subarray(0, headBytes), parts: all() };
}

interface Unpacker {
  readonly magic: readonly number[];
  parts(packed: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array>;
}

/** RFC 1952 and RFC 8878. */
const unpackers: readonly Unpacker[] = [
  { magic: [0x1f, 0x8b], parts: gunzipped },
  { magic: [0x28, 0xb5, 0x2f, 0xfd], parts: unzstandardized },
];

async function* gunzipped(packed: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const iterator = packed[Symbol.asyncIterator]();
  const stream = new ReadableStream<BufferSource>({
    async pull(controller) {
      const next = await iterator.next();
      if (next.done) controller.close();
      else controller.enqueue(next.value as Uint8Array<ArrayBuffer>); // a part of a file or of a fetch, not shared between threads
    },
    async cancel() {
      await iterator.return?.();
    },
  });
  const reader = stream.pipeThrough(new DecompressionStream("gzip")).getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    await reader.cancel().catch(() => undefined); // it has failed already, and said so
  }
}

async function* unzstandardized(packed: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const { Decompress } = await import("fzstd");
  let ready: Uint8Array[] = [];
  const decompress = new Decompress((part) => ready.push(part));
  // The last part is told as such, without which a file that was cut would pass.
  let held: Uint8Array | null = null;
  const pushed = function* (part: Uint8Array, isLast: boolean): Generator<Uint8Array> {
    decompress.push(part, isLast);
    const parts = ready;
    ready = [];
    yield* parts;
  };
  for await (const part of packed) {
    if (held) yield* pushed(held, false);
    held = new Uint8Array(part);
  }
  if (held) yield* pushed(held, true);
}

async function* guarded(parts: AsyncIterable<Uint8Array>, path: string): AsyncGenerator<Uint8Array> {
  try {
    yield* parts;
  } catch (error) {
    if (error instanceof DataError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new DataError(`${path}: the compressed file is damaged or cut (${reason}). Copy or pack it again.`, path, 0);
  }
}
