import { DataError } from "../formats/error.js";
import type { DataRecord } from "../formats/records.js";
import { type Columns, mapped } from "./columns.js";
import { completion, text } from "./completion.js";
import { Fields, forms } from "./fields.js";
import { instruction, question } from "./instruction.js";
import type { Layout, LayoutOptions } from "./layout.js";
import { messages } from "./messages.js";
import type { Row } from "./row.js";
import { shareGpt } from "./sharegpt.js";

/** How records become rows. */
export interface RowOptions extends LayoutOptions, Columns {}

/** In the order in which they are looked for. */
const layouts: readonly Layout[] = [messages, shareGpt, completion, instruction, question, text];

/** Makes rows of records, by the layout that each row's fields tell, and counts what it met. */
export class RowReader {
  /** Rows of each layout, by its name. */
  readonly counts: Map<string, number> = new Map();
  /** Fields of rows that nobody reads. */
  readonly unreadFields: Set<string> = new Set();

  constructor(
    readonly path: string,
    readonly options: RowOptions,
  ) {}

  /** Throws DataError with the line where the record is of no known layout, or damaged. */
  row({ line, value }: DataRecord): Row {
    const { map, format } = this.options;
    const given = Fields.of(value, this.path, line);
    const fields = map === undefined && format === undefined ? given : mapped(given, this.options);
    const layout = layouts.find((one) => one.matches(fields));
    if (!layout) throw unknown(given);
    const row = layout.row(fields, this.options);
    this.counts.set(layout.name, (this.counts.get(layout.name) ?? 0) + 1);
    for (const name of fields.unread()) this.unreadFields.add(name);
    return row;
  }
}

function unknown(fields: Fields): DataError {
  const { path, line, values } = fields;
  const fail = (fact: string, remedy: string): DataError => new DataError(`${path}:${line}: ${fact}. ${remedy}`, path, line);
  if ("chosen" in values && "rejected" in values)
    return fail(
      'the row holds preferences ("chosen", "rejected"), from which nothing is learned here',
      "Train on the chosen answers: --map prompt=prompt,completion=chosen.",
    );
  const found = Object.keys(values);
  const named = found.length === 0 ? "no fields" : `the fields ${found.map((name) => `"${name}"`).join(", ")}`;
  const remedy =
    found.length === 0
      ? `A row is ${forms}`
      : `Name the columns: --map prompt=COLUMN,completion=COLUMN, or --format "{COLUMN}". A row is ${forms}`;
  return fail(`the row has ${named}`, `${remedy}.`);
}
