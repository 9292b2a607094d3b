import { type ByteSource, blobSource, bytesSource } from "@lowrank/tensor";

/**
 * What a data file is read from: its text, its bytes, a Blob or File, a `ByteSource` (what `FileSystem.open` gives), a stream (the body of
 * a fetch, Node's streams) or any other series of parts. A stream is read once; its parts must not change after they were handed over.
 */
export type DataSource =
  | string
  | Uint8Array
  | Blob
  | ByteSource
  | ReadableStream<Uint8Array>
  | AsyncIterable<Uint8Array>
  | Iterable<Uint8Array>;

/** Bytes that are read and decoded at a time. */
const partBytes = 2 ** 18;

/** The bytes of a source in parts of at most 256 KiB. */
export async function* partsOf(source: Exclude<DataSource, string>): AsyncGenerator<Uint8Array> {
  for await (const part of wholeParts(source)) {
    for (let start = 0; start < part.byteLength; start += partBytes) yield part.subarray(start, start + partBytes);
  }
}

/** The source itself where it can be read again, else its parts in memory. */
export async function rereadable(source: DataSource): Promise<DataSource> {
  const isSeries = typeof source === "object" && (isStream(source) || isIterable(source));
  if (!isSeries || source instanceof Uint8Array || Array.isArray(source)) return source;
  const parts: Uint8Array[] = [];
  for await (const part of partsOf(source)) parts.push(part);
  return parts;
}

function wholeParts(source: Exclude<DataSource, string>): AsyncIterable<Uint8Array> | Iterable<Uint8Array> {
  if (source instanceof Uint8Array) return readParts(bytesSource(source));
  if (isStream(source)) return streamParts(source);
  if (isIterable(source)) return source;
  return readParts(source instanceof Blob ? blobSource(source) : source);
}

function isStream(source: object): source is ReadableStream<Uint8Array> {
  return "getReader" in source;
}

function isIterable(source: object): source is AsyncIterable<Uint8Array> | Iterable<Uint8Array> {
  return Symbol.asyncIterator in source || Symbol.iterator in source;
}

async function* readParts(source: ByteSource): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < source.byteLength; start += partBytes)
    yield await source.read(start, Math.min(partBytes, source.byteLength - start));
}

/** Not every browser iterates over streams. */
async function* streamParts(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    await reader.cancel();
    reader.releaseLock();
  }
}
