import { DataError } from "../formats/error.js";
import { readRecords } from "../formats/format.js";
import type { DataRecord, Records } from "../formats/records.js";
import type { DataSource } from "../formats/source.js";
import { type Columns, hasColumns, mapped } from "./columns.js";
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

/** Fields under which tools write a file's rows as one list: pandas, exports of annotators, benchmarks. */
const listNames = ["data", "rows", "train", "examples", "instances", "records", "items", "samples"];

/** Makes rows of records, by the layout that each row's fields tell, and counts what it met. */
export class RowReader {
  /** Rows of each layout, by its name. */
  readonly counts: Map<string, number> = new Map();
  /** Fields of rows that nobody reads. */
  readonly unreadFields: Set<string> = new Set();
  /** Fields of objects around the rows, whose lists were read as the rows. */
  readonly listFields: Set<string> = new Set();

  constructor(
    readonly path: string,
    readonly options: RowOptions,
  ) {}

  /** The records of a source, some at a time, each of which should be a row. Throws DataError as `readRecords` does. */
  async *records(source: DataSource): AsyncGenerator<Records> {
    for await (const records of readRecords(source, this.path)) yield this.unwrapped(records);
  }

  /** The records, those of a list inside an object (`{"data": [ … ]}`) one by one and with their number for a line, and conversations that are bare lists. */
  unwrapped(records: Records): Records {
    return records.flatMap((record) => (record instanceof DataError ? record : this.#recordsIn(record)));
  }

  /** Throws DataError with the line where the record is of no known layout, or damaged. */
  row({ line, value }: DataRecord): Row {
    const given = Fields.of(value, this.path, line);
    const fields = this.#hasColumns ? mapped(given, this.options) : given;
    const layout = layouts.find((one) => one.matches(fields));
    if (!layout) throw unknown(given);
    const row = layout.row(fields, this.options);
    this.counts.set(layout.name, (this.counts.get(layout.name) ?? 0) + 1);
    for (const name of fields.unread()) this.unreadFields.add(name);
    return row;
  }

  get #hasColumns(): boolean {
    return this.options.map !== undefined || this.options.format !== undefined;
  }

  #recordsIn(record: DataRecord): readonly (DataRecord | DataError)[] {
    const { line, value } = record;
    if (Array.isArray(value)) return [{ line, value: asConversation(value) }];
    if (typeof value !== "object" || value === null) return [record];
    const values = value as Readonly<Record<string, unknown>>;
    const lists = listNames.flatMap((name) => {
      const list = values[name];
      return Array.isArray(list) && list.length > 0 && list.every(isObject) ? [{ name, list }] : [];
    });
    const [found] = lists;
    if (!found || this.#isRow(values, line)) return [record];
    if (lists.length > 1) {
      const names = lists.map(({ name }) => `"${name}"`).join(", ");
      return [
        new DataError(
          `${this.path}:${line}: the object holds several lists of rows: ${names}. Write each into a file of its own.`,
          this.path,
          line,
        ),
      ];
    }
    this.listFields.add(found.name);
    return found.list.map((item: unknown, i) => ({ line: i + 1, value: Array.isArray(item) ? asConversation(item) : item }));
  }

  /** Whether an object has the fields of a row, or the columns that are named for one. */
  #isRow(values: Readonly<Record<string, unknown>>, line: number): boolean {
    const fields = new Fields(values, this.path, line);
    return layouts.some((one) => one.matches(fields)) || (this.#hasColumns && hasColumns(fields, this.options));
  }
}

const isObject = (value: unknown): value is object => typeof value === "object" && value !== null;

/** A list of turns as a row; other lists as they are. */
function asConversation(list: readonly unknown[]): unknown {
  const isOf = (name: string): boolean => list.length > 0 && list.every((item) => isObject(item) && name in item);
  return isOf("role") ? { messages: list } : isOf("from") ? { conversations: list } : list;
}

function unknown(fields: Fields): DataError {
  const { path, line, values } = fields;
  const fail = (fact: string, remedy: string): DataError => new DataError(`${path}:${line}: ${fact}. ${remedy}`, path, line);
  if ("chosen" in values && "rejected" in values)
    return fail(
      'the row holds preferences ("chosen", "rejected"), from which nothing is learned here',
      "Train on the chosen answers: --map prompt=prompt,completion=chosen.",
    );
  const isTurn = (values["role"] !== undefined && "content" in values) || (values["from"] !== undefined && "value" in values);
  if (isTurn) return fail("the row is one message", 'Put a conversation\'s messages into one row: {"messages":[{"role","content"}, …]}.');
  const found = Object.keys(values);
  if (found.length > 0 && found.every((name) => !fields.has(name)))
    return fail(`the row has no value in ${found.map((name) => `"${name}"`).join(", ")}`, "Fill it or remove the row.");
  const named = found.length === 0 ? "no fields" : `the fields ${found.map((name) => `"${name}"`).join(", ")}`;
  const remedy =
    found.length === 0
      ? `A row is ${forms}`
      : `Name the columns: --map prompt=COLUMN,completion=COLUMN, or --format "{COLUMN}". A row is ${forms}`;
  return fail(`the row has ${named}`, `${remedy}.`);
}
