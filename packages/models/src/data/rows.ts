import { Faults } from "./faults.js";
import { DataError } from "./formats/error.js";
import { lineRecords } from "./formats/json.js";
import { linesOf } from "./formats/lines.js";
import type { Records } from "./formats/records.js";
import type { DataSource } from "./formats/source.js";
import { forms } from "./layouts/fields.js";
import { type RowOptions, RowReader } from "./layouts/reader.js";
import type { Row } from "./layouts/row.js";

const plainText: RowOptions = { asMessages: false };

/**
 * The rows of a JSONL text: one object a line, of the layouts that `readRows` knows; blank lines are skipped.
 * Throws DataError with the file and the lines of up to 20 rows that are not JSON or of no known layout, and when there is no row at all.
 */
export function parseRows(text: string, path: string, options: RowOptions = plainText): Row[] {
  const reader = new RowReader(path, options);
  const faults = new Faults(path);
  const rows: Row[] = [];
  for (const lines of linesOf(text))
    for (const row of rowsOf(reader.unwrapped([...lineRecords(lines, path)]), reader, faults)) rows.push(row);
  faults.check();
  if (rows.length === 0) throw withoutRows(path);
  return rows;
}

/**
 * The rows of a source, one after another, as it is read: for files of any size, in any format that `readRecords` reads. A row is
 * `prompt` and `completion`, `text`, OpenAI's `messages`, ShareGPT's `conversations`, Alpaca's `instruction` and `output`, or a question and
 * its answer; `options` names the columns of others. Throws as `parseRows` does.
 */
export async function* readRows(source: DataSource, path: string, options: RowOptions = plainText): AsyncGenerator<Row> {
  const reader = new RowReader(path, options);
  const faults = new Faults(path);
  let isEmpty = true;
  for await (const records of reader.records(source)) {
    for (const row of rowsOf(records, reader, faults)) {
      isEmpty = false;
      yield row;
    }
  }
  faults.check();
  if (isEmpty) throw withoutRows(path);
}

/** The rows of some records; those that are none are among the faults. */
export function* rowsOf(records: Records, reader: RowReader, faults: Faults): Generator<Row> {
  for (const record of records) {
    const row = faults.tried(() => {
      if (record instanceof DataError) throw record;
      return reader.row(record);
    });
    if (row) yield row;
  }
}

export function withoutRows(path: string): DataError {
  return new DataError(`${path}: the file holds no row. Write one JSON object a line: ${forms}.`, path, 0);
}
