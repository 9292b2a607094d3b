import type { ByteSource } from "@lowrank/tensor";
import { DataError } from "./error.js";
import type { Records } from "./records.js";

/** Rows that are read at a time. */
const blockRows = 1024;

/**
 * The records of a Apache Parquet file, some rows at a time. Fields of structures without a value are left out, as they are in the JSON that
 * such files are made of; an empty `content` stays null. Throws DataError where the file is not Parquet or is damaged.
 */
export async function* parquetRecords(source: ByteSource, path: string): AsyncGenerator<Records> {
  const [{ parquetMetadataAsync, parquetReadObjects }, { compressors }] = await Promise.all([
    import("hyparquet"),
    import("hyparquet-compressors"),
  ]);
  const file = {
    byteLength: source.byteLength,
    // A copy, because the library keeps what it is given as an ArrayBuffer of its own.
    slice: async (start: number, end: number = source.byteLength): Promise<ArrayBuffer> =>
      new Uint8Array(await source.read(start, Math.max(0, end - start))).buffer,
  };
  const guarded = async <R>(use: () => Promise<R>): Promise<R> => {
    try {
      return await use();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new DataError(`${path}: the Parquet file cannot be read (${reason}). Fetch or write it again.`, path, 0);
    }
  };
  const metadata = await guarded(() => parquetMetadataAsync(file));
  let start = 0;
  for (const group of metadata.row_groups) {
    const groupEnd = start + Number(group.num_rows);
    for (; start < groupEnd; start += blockRows) {
      const [rowStart, rowEnd] = [start, Math.min(start + blockRows, groupEnd)];
      const rows = await guarded(() => parquetReadObjects({ file, metadata, rowStart, rowEnd, compressors }));
      yield rows.map((row, i) => ({ line: rowStart + i + 1, value: plain(row, true) }));
    }
    start = groupEnd;
  }
}

/** A value as JSON would give it. */
function plain(value: unknown, isRow = false): unknown {
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return value.map((item) => plain(item));
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as ArrayLike<number | bigint>, (item) => plain(item)); // a typed array
  if (typeof value !== "object" || value === null) return value ?? null;
  const fields = Object.entries(value).filter(([name, item]) => isRow || name === "content" || (item !== null && item !== undefined));
  return Object.fromEntries(fields.map(([name, item]) => [name, plain(item)]));
}
