import type { DataError } from "./error.js";

/** What a data file holds for one row, before it is known what the row means; `line` is its 1-based line, in a Parquet file its number. */
export interface DataRecord {
  readonly line: number;
  readonly value: unknown;
}

/** Records that follow one another, and for those that cannot be read the error. */
export type Records = readonly (DataRecord | DataError)[];

/** A value of bytes that are no text in UTF-8: an image, or a text that was written in another encoding. */
export class Bytes {
  constructor(readonly byteLength: number) {}
}
