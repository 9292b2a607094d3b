import { type ByteSource, blobSource, bytesSource } from "@lowrank/tensor";
import { opened } from "./bytes.js";
import { delimitedRecords } from "./delimited.js";
import { DataError } from "./error.js";
import { arrayRecords, lineRecords } from "./json.js";
import { linesOf, readLines } from "./lines.js";
import { parquetRecords } from "./parquet.js";
import type { Records } from "./records.js";
import type { DataSource } from "./source.js";
import { joined, textParts } from "./text.js";

/** How a data file is written. */
export type DataFormat = "jsonl" | "json" | "csv" | "tsv" | "parquet";

/** Endings of files' names, in front of those of compression. */
const endings: Readonly<Record<string, DataFormat>> = {
  jsonl: "jsonl",
  ndjson: "jsonl",
  json: "json",
  csv: "csv",
  tsv: "tsv",
  tab: "tsv",
  parquet: "parquet",
};

/** Files that data sets keep beside their rows. */
const descriptions = /(^|[/\\])(dataset_infos?|dataset_dict|state)\.json$/i;

/** Whether a file's name says that it holds rows of data. */
export function isDataFile(name: string): boolean {
  return Object.hasOwn(endings, endingOf(name)) && !descriptions.test(name);
}

function endingOf(name: string): string {
  return name
    .toLowerCase()
    .replace(/\.(gz|zst|zstd)$/, "")
    .replace(/^.*[./\\]/, "");
}

const magic = { parquet: "PAR1", utf8: "\xEF\xBB\xBF" };

/** What data is kept in that is not read here, by its first bytes as characters of the same numbers, with what to do. */
const others: readonly { readonly begins: RegExp; readonly what: string; readonly remedy: string }[] = [
  { begins: /^PK\x03\x04|^PK\x05\x06/, what: "a ZIP archive or an Excel workbook", remedy: "Unpack it, or save the table as CSV" },
  { begins: /^BZh\d1AY&SY/, what: "packed by bzip2", remedy: "Unpack it: bunzip2 FILE" },
  { begins: /^\xfd7zXZ\0/, what: "packed by xz", remedy: "Unpack it: unxz FILE" },
  { begins: /^\x04\x22\x4d\x18/, what: "packed by lz4", remedy: "Unpack it: unlz4 FILE" },
  { begins: /^7z\xbc\xaf\x27\x1c|^Rar!\x1a\x07/, what: "a packed archive", remedy: "Unpack it" },
  {
    begins: /^ARROW1|^\xff\xff\xff\xff/,
    what: "an Arrow file",
    remedy: 'Write it as Parquet: load_from_disk("FOLDER").to_parquet("rows.parquet")',
  },
  {
    begins: /^SQLite format 3\0/,
    what: "an SQLite database",
    remedy: "Write the table as CSV: sqlite3 -csv -header FILE 'SELECT * FROM …'",
  },
  { begins: /^\xd0\xcf\x11\xe0/, what: "an old Excel workbook", remedy: "Save the table as CSV" },
  { begins: /^%PDF-/, what: "a PDF", remedy: "Write its text as rows of JSONL" },
];

/** Throws DataError where what a file begins with, or its name, says that it is of a kind that is not read. */
function refuseOthers(begin: string, path: string): void {
  const isTar = /\.(tar|tgz)$/i.test(path.replace(/\.(gz|zst|zstd)$/i, ""));
  const found = isTar ? { what: "a tar archive", remedy: "Unpack it" } : others.find(({ begins }) => begins.test(begin));
  if (found) throw new DataError(`${path}: the file is ${found.what}, which is not read. ${found.remedy}.`, path, 0);
}

/** The format by what a file begins with, and where this leaves a choice by its name. */
function formatOf(head: Uint8Array, path: string): DataFormat {
  const named = endings[endingOf(path)];
  const begin = latin(head);
  if (begin.startsWith(magic.parquet)) return "parquet";
  refuseOthers(begin, path);
  if (named === "csv" || named === "tsv") return named;
  const first = begin
    .replace(magic.utf8, "")
    .replaceAll("\0", "")
    .replace(/^\xFF\xFE|^\xFE\xFF/, "")
    .trimStart();
  if (named === "parquet")
    throw new DataError(`${path}: the file is not Parquet (it does not begin with PAR1). Fetch or write it again.`, path, 0);
  // A list, or an object over several lines; a line that holds a whole object is JSONL whatever the file is called.
  if (first.startsWith("[")) return "json";
  return named === "json" && first.startsWith("{") && !isWhole(first.split("\n", 2)) ? "json" : "jsonl";
}

/** Whether the first line of several is JSON of its own. */
function isWhole([line = "", next]: readonly string[]): boolean {
  if (next === undefined) return true;
  try {
    JSON.parse(line);
    return true;
  } catch {
    return false; // it goes on in the next
  }
}

/**
 * The records of a data file, some at a time, in the format that its first bytes and its name tell: JSONL, a JSON list, CSV or TSV with the
 * columns' names on the first line, or Parquet; each of them also packed by gzip or zstd; text in UTF-8, or in UTF-16.
 * Throws DataError where the file as a whole cannot be read.
 */
export async function* readRecords(source: DataSource, path: string): AsyncGenerator<Records> {
  if (typeof source === "string") {
    const named = endings[endingOf(path)] ?? "jsonl";
    if (/^\s*\[/.test(source) || named !== "jsonl") yield* readRecords(new TextEncoder().encode(source), path);
    else for (const lines of linesOf(source)) yield [...lineRecords(lines, path)];
    return;
  }
  const whole = randomAccess(source);
  const { head, parts } = await opened(source, path);
  const format = formatOf(head, path);
  switch (format) {
    case "jsonl":
      for await (const lines of readLines(parts, path)) yield [...lineRecords(lines, path)];
      return;
    case "json":
      yield* arrayRecords(textParts(parts, path), path);
      return;
    case "csv":
    case "tsv":
      yield* delimitedRecords(textParts(parts, path), path, format === "tsv" ? "\t" : undefined);
      return;
    case "parquet":
      yield* parquetRecords(whole && (await startsWith(whole, magic.parquet)) ? whole : bytesSource(joined(await all(parts))), path);
  }
}

/** A source of which any part can be read, where it is one. */
function randomAccess(source: Exclude<DataSource, string>): ByteSource | null {
  if (source instanceof Uint8Array) return bytesSource(source);
  if (source instanceof Blob) return blobSource(source);
  return "read" in source && "byteLength" in source ? source : null;
}

async function startsWith(source: ByteSource, text: string): Promise<boolean> {
  return source.byteLength >= text.length && latin(await source.read(0, text.length)) === text;
}

async function all(parts: AsyncIterable<Uint8Array>): Promise<Uint8Array[]> {
  const whole: Uint8Array[] = [];
  for await (const part of parts) whole.push(new Uint8Array(part));
  return whole;
}

/** Bytes as characters of the same numbers. */
function latin(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}
