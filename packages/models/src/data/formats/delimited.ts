import { DataError } from "./error.js";
import type { DataRecord, Records } from "./records.js";

const quote = 0x22;
const newline = 0x0a;

/** Characters that are taken apart at a time. */
const blockSize = 2 ** 18;

/** Characters of the longest record: what is longer has a quote too few or too many. */
const longestRecord = 1e8;

/**
 * The records of comma- or tab-separated values (RFC 4180), of which the first line names the columns; every value is a text. The delimiter
 * is what the first line has most of: comma, semicolon, tab or bar. Throws DataError where there are no names.
 */
export async function* delimitedRecords(pieces: AsyncIterable<string>, path: string, delimiter?: string): AsyncGenerator<Records> {
  const { parse } = await import("csv-parse/browser/esm/sync");
  let names: readonly string[] | null = null;
  let [line, chosen] = [1, delimiter];
  for await (const block of blocks(pieces, path)) {
    chosen ??= delimiterOf(block);
    const records: (DataRecord | DataError)[] = [];
    // The line on which the next record begins, counted within the block.
    let next = 0;
    try {
      // csv-parse declares what `info` changes in the result for some of its overloads only.
      const rows = parse(block, {
        delimiter: chosen,
        info: true,
        relax_column_count: true,
        skip_empty_lines: true,
      }) as unknown as readonly {
        readonly info: { readonly lines: number };
        readonly record: readonly string[];
      }[];
      for (const { info, record } of rows) {
        const at = line + next;
        next = info.lines;
        if (names === null) names = checkedNames(record, path, at);
        else if (record.length !== names.length)
          records.push(
            new DataError(
              `${path}:${at}: the row has ${record.length} values for ${names.length} columns. Quote values that hold the delimiter or a line break.`,
              path,
              at,
            ),
          );
        else records.push({ line: at, value: Object.fromEntries(names.map((name, i) => [name, record[i] ?? ""])) });
      }
    } catch (error) {
      if (error instanceof DataError) throw error;
      const at = line + Math.max(0, Number((error as { lines?: number }).lines ?? 1) - 1);
      const reason = error instanceof Error ? error.message : String(error);
      throw new DataError(`${path}:${at}: not a table of values (${reason}). Double the quotes inside quoted values.`, path, at);
    }
    if (records.length > 0) yield records;
    line += lineBreaks(block);
  }
}

/** The columns' names; one that has none, as that of the index that pandas writes, is called as pandas calls it. */
function checkedNames(record: readonly string[], path: string, line: number): readonly string[] {
  const names = record.map((name, i) => name.trim() || `Unnamed: ${i}`);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined || record.every((name) => name.trim() === ""))
    throw new DataError(
      `${path}:${line}: the first line does not name every column once (${twice === undefined ? "none has a name" : `"${twice}" comes twice`}). Write the columns' names there.`,
      path,
      line,
    );
  return names;
}

function delimiterOf(block: string): string {
  const head = block.slice(0, block.indexOf("\n") < 0 ? undefined : block.indexOf("\n"));
  const counted = [",", "\t", ";", "|"].map((delimiter) => ({ delimiter, count: head.split(delimiter).length }));
  return counted.reduce((most, one) => (one.count > most.count ? one : most)).delimiter;
}

/** Texts that end where a record does: behind a line break that no quotes hold. Throws DataError for a record that does not end. */
async function* blocks(pieces: AsyncIterable<string>, path: string): AsyncGenerator<string> {
  let held = "";
  let isQuoted = false;
  // Where the last record of what is held ends, and the line on which what is held begins.
  let [end, line] = [0, 1];
  for await (const piece of pieces) {
    for (let i = 0; i < piece.length; i++) {
      const c = piece.charCodeAt(i);
      if (c === quote) isQuoted = !isQuoted;
      else if (c === newline && !isQuoted) end = held.length + i + 1;
    }
    held += piece;
    if (held.length - end > longestRecord) {
      const at = line + lineBreaks(held.slice(0, end));
      throw new DataError(
        `${path}:${at}: the row that begins here does not end within ${longestRecord / 1e6} million characters. Look for a quote that is not closed; double the quotes inside quoted values.`,
        path,
        at,
      );
    }
    if (end < blockSize) continue;
    const block = held.slice(0, end);
    yield block;
    line += lineBreaks(block);
    held = held.slice(end);
    end = 0;
  }
  if (held.trim() !== "") yield held;
}

function lineBreaks(text: string): number {
  let count = 0;
  for (let i = text.indexOf("\n"); i >= 0; i = text.indexOf("\n", i + 1)) count++;
  return count;
}
