import type { ByteSource } from "@lowrank/tensor";
import type { FileMetaData, SchemaTree } from "hyparquet";
import { JsonNumber, parseLossless } from "../../lossless.js";
import { DataError } from "./error.js";
import { Bytes, type Records } from "./records.js";

/** Rows that are read at a time. */
const blockRows = 1024;

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** How texts are made of bytes: without a loss. */
const parsers = {
  stringFromBytes(bytes: Uint8Array | undefined): unknown {
    if (bytes === undefined) return undefined;
    try {
      return strict.decode(bytes);
    } catch {
      return new Bytes(bytes.byteLength); // which matters where a text is asked for
    }
  },
  jsonFromBytes: (bytes: Uint8Array | undefined): unknown => (bytes === undefined ? undefined : parseLossless(strict.decode(bytes))),
};

/**
 * The records of a Apache Parquet file, some rows at a time. Fields of structures without a value are left out, as they are in the JSON that
 * such files are made of; an empty `content` stays null. Throws DataError where the file is not Parquet or is damaged.
 */
export async function* parquetRecords(source: ByteSource, path: string): AsyncGenerator<Records> {
  const [{ parquetMetadataAsync, parquetReadObjects, parquetSchema }, { compressors }] = await Promise.all([
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
  const metadata: FileMetaData = await guarded(() => parquetMetadataAsync(file));
  const columns = columnsOf(parquetSchema(metadata));
  let start = 0;
  for (const group of metadata.row_groups) {
    const groupEnd = start + Number(group.num_rows);
    for (; start < groupEnd; start += blockRows) {
      const [rowStart, rowEnd] = [start, Math.min(start + blockRows, groupEnd)];
      const rows = await guarded(() => parquetReadObjects({ file, metadata, rowStart, rowEnd, compressors, parsers }));
      yield rows.map((row, i) => ({
        line: rowStart + i + 1,
        value: Object.fromEntries(Object.entries(row).map(([name, value]) => [name, plain(value, columns.get(name))])),
      }));
    }
    start = groupEnd;
  }
}

/** The parts of a structure by name. */
function columnsOf(schema: SchemaTree | undefined): ReadonlyMap<string, SchemaTree> {
  return new Map(schema?.children.map((child) => [child.element.name, child]));
}

/** A value as JSON would give it: a number of a column of floats is one, 5.0 for one. */
function plain(value: unknown, schema: SchemaTree | undefined): unknown {
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  if (typeof value === "number") return isFloat(schema) && Number.isInteger(value) ? new JsonNumber(floatText(value)) : value;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (Array.isArray(value)) return value.map((item) => plain(item, itemOf(schema)));
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as ArrayLike<number | bigint>, (item) => plain(item, itemOf(schema))); // a typed array
  if (typeof value !== "object" || value === null || value instanceof Bytes || value instanceof JsonNumber) return value ?? null;
  const partOf = isMap(schema) ? () => schema?.children[0]?.children[1] : (name: string) => columnsOf(schema).get(name);
  const fields = Object.entries(value).filter(([name, item]) => name === "content" || (item !== null && item !== undefined));
  return Object.fromEntries(fields.map(([name, item]) => [name, plain(item, partOf(name))]));
}

function isFloat(schema: SchemaTree | undefined): boolean {
  return schema?.element.type === "DOUBLE" || schema?.element.type === "FLOAT";
}

function isMap(schema: SchemaTree | undefined): boolean {
  return schema?.element.converted_type === "MAP" || schema?.element.logical_type?.type === "MAP";
}

/** A whole number as a float is written. */
function floatText(value: number): string {
  const text = Object.is(value, -0) ? "-0" : String(value);
  return text.includes("e") ? text : `${text}.0`;
}

/** The items of a list: hyparquet leaves out the level between, where there is one. */
function itemOf(schema: SchemaTree | undefined): SchemaTree | undefined {
  const [list] = schema?.children ?? [];
  return list?.children.length === 1 ? list.children[0] : (list ?? schema);
}
