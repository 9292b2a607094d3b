import { DataError } from "./error.js";
import { type DataSource, partsOf } from "./source.js";
import { decodedText, joined, utf8Parts } from "./text.js";

/** Some lines of a text that follow one another; `first` is the number of the first, from 1. */
export interface Lines {
  readonly first: number;
  readonly texts: readonly string[];
}

/** Bytes of the longest line, a little less than a string of JavaScript can hold. */
const lineLimitBytes = 512e6;

const newline = 0x0a;

/**
 * The lines of a text in UTF-8, or in UTF-16 with a byte order mark, some at a time, so that a file of any size takes little memory;
 * without the byte order mark. Throws DataError with the line and byte that are not UTF-8, and for a line longer than 512 MB.
 */
export async function* readLines(source: DataSource, path: string): AsyncGenerator<Lines> {
  if (typeof source === "string") {
    yield* linesOf(source);
    return;
  }
  let [first, at] = [1, 0];
  // The beginning of a line whose end has not come yet.
  let held: Uint8Array[] = [];
  let heldBytes = 0;
  for await (const part of utf8Parts(partsOf(source), path)) {
    const end = part.lastIndexOf(newline) + 1;
    if (heldBytes + (end === 0 ? part.byteLength : part.indexOf(newline)) > lineLimitBytes) {
      throw new DataError(
        `${path}:${first}: the line is longer than ${lineLimitBytes / 1e6} MB, which no string holds. Write one row on every line, each ended by a line break.`,
        path,
        first,
      );
    }
    if (end === 0) {
      held.push(part);
      heldBytes += part.byteLength;
      continue;
    }
    const texts = decoded([...held, part.subarray(0, end - 1)], path, first, at);
    yield { first, texts };
    at += heldBytes + end;
    first += texts.length;
    held = end < part.byteLength ? [part.subarray(end)] : [];
    heldBytes = part.byteLength - end;
  }
  if (heldBytes > 0) yield { first, texts: decoded(held, path, first, at) };
}

/** Lines of a text in memory; sizes in characters. */
export function* linesOf(text: string): Generator<Lines> {
  const blockSize = 2 ** 18;
  let first = 1;
  for (let start = 0; start < text.length; ) {
    const found = text.indexOf("\n", start + blockSize);
    const end = found < 0 ? text.length : found;
    const texts = text.slice(start, end).split("\n");
    yield { first, texts: first === 1 ? withoutMark(texts) : texts };
    first += texts.length;
    start = end + 1;
  }
}

function decoded(parts: readonly Uint8Array[], path: string, first: number, at: number): string[] {
  const bytes = parts.length === 1 ? (parts[0] as Uint8Array) : joined(parts); // there is one
  const texts = decodedText(bytes, path, first, at).split("\n");
  return first === 1 ? withoutMark(texts) : texts;
}

function withoutMark(texts: readonly string[]): string[] {
  return texts.map((text, i) => (i === 0 ? text.replace(/^\uFEFF/, "") : text));
}
