import { DataError } from "./error.js";

const newline = 0x0a;
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** First bytes that say how a text is encoded. */
const markBytes = 4;

/**
 * The kind of UTF-16 that a file is by its first bytes: its byte order mark, or zeros in every other place, which no UTF-8 of two signs of ASCII
 * has (RFC 4627, section 3); null for others.
 */
export function utf16Of(bytes: Uint8Array): "utf-16le" | "utf-16be" | null {
  const [a, b, c, d] = bytes;
  if (a === 0xff && b === 0xfe) return "utf-16le";
  if (a === 0xfe && b === 0xff) return "utf-16be";
  if (!a && b && !c && d) return "utf-16be";
  return a && !b && c && !d && bytes.length >= markBytes ? "utf-16le" : null;
}

/**
 * Text in UTF-8: as it comes, or converted from UTF-16 where the first bytes say that it is (`utf16Of`). Throws DataError with the byte
 * where the UTF-16 is damaged.
 */
export async function* utf8Parts(
  parts: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  path: string,
): AsyncGenerator<Uint8Array<ArrayBufferLike>> {
  let decoder: TextDecoder | null | undefined;
  const encoder = new TextEncoder();
  let at = 0;
  const decoded = (use: () => string): Uint8Array => {
    try {
      return encoder.encode(use());
    } catch {
      throw new DataError(`${path}: the UTF-16 text is damaged before byte ${at}. Save the file as UTF-8.`, path, 0);
    }
  };
  /** A part, or the first ones together, with what its encoding makes of it. */
  const converted = (part: Uint8Array): Uint8Array => {
    if (decoder === undefined) {
      const encoding = utf16Of(part);
      decoder = encoding && new TextDecoder(encoding, { fatal: true });
    }
    const open = decoder;
    at += part.byteLength;
    return open ? decoded(() => open.decode(part, { stream: true })) : part;
  };
  let first: Uint8Array | null = new Uint8Array(0);
  for await (const part of parts) {
    if (first === null) {
      yield converted(part);
      continue;
    }
    first = first.byteLength === 0 ? part : joined([first, part]);
    if (first.byteLength < markBytes) continue;
    yield converted(first);
    first = null;
  }
  if (first !== null && first.byteLength > 0) yield converted(first);
  const open = decoder;
  if (open) yield decoded(() => open.decode());
}

/** The text of some bytes in pieces, without its byte order mark. Throws DataError with the line and byte that are not UTF-8. */
export async function* textParts(parts: AsyncIterable<Uint8Array> | Iterable<Uint8Array>, path: string): AsyncGenerator<string> {
  let [at, line] = [0, 1];
  let rest: Uint8Array = new Uint8Array(0);
  const text = (bytes: Uint8Array): string => {
    const decoded = decodedText(bytes, path, line, at);
    const isFirst = at === 0;
    at += bytes.byteLength;
    line += lineBreaks(bytes);
    return isFirst ? decoded.replace(/^\uFEFF/, "") : decoded;
  };
  for await (const part of utf8Parts(parts, path)) {
    const bytes = rest.byteLength === 0 ? part : joined([rest, part]);
    const end = characterEnd(bytes);
    rest = bytes.subarray(end);
    if (end > 0) yield text(bytes.subarray(0, end));
  }
  if (rest.byteLength > 0) yield text(rest);
}

/** The text of bytes at line `line` and byte `at` of a file. Throws DataError with the line and byte that are not UTF-8. */
export function decodedText(bytes: Uint8Array, path: string, line: number, at: number): string {
  try {
    return strict.decode(bytes);
  } catch {
    const place = invalidAt(bytes);
    const wrong = line + lineBreaks(bytes.subarray(0, place));
    const byte = `0x${(bytes[place] ?? 0).toString(16).toUpperCase().padStart(2, "0")}`;
    throw new DataError(
      `${path}:${wrong}: the line is not UTF-8 text (byte ${at + place} of the file is ${byte}). Save the file as UTF-8.`,
      path,
      wrong,
    );
  }
}

/** One array of several. */
export function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return whole;
}

function lineBreaks(bytes: Uint8Array): number {
  let count = 0;
  for (let i = bytes.indexOf(newline); i >= 0; i = bytes.indexOf(newline, i + 1)) count++;
  return count;
}

/** Bytes that a character beginning with this byte has; 0 where none begins so. Unicode 15, table 3-7. */
function sizeOf(first: number): number {
  if (first < 0x80) return 1;
  if (first < 0xc2) return 0;
  return first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
}

/** Where the last whole character ends. */
function characterEnd(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] as number; // back ≤ length
    if ((byte & 0xc0) === 0x80) continue;
    return sizeOf(byte) > back ? bytes.length - back : bytes.length;
  }
  return bytes.length;
}

/** Of bytes that are not UTF-8, where the first character begins that is wrong. */
function invalidAt(bytes: Uint8Array): number {
  let at = 0;
  while (at < bytes.length) {
    const size = sizeOf(bytes[at] as number); // at < length
    if (size === 0) return at;
    try {
      strict.decode(bytes.subarray(at, at + size));
    } catch {
      return at;
    }
    at += size;
  }
  return bytes.length;
}
