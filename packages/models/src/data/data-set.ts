import type { Example } from "./example.js";
import { type Examples, ExampleTable } from "./examples.js";
import { Faults } from "./faults.js";
import { DataError } from "./formats/error.js";
import { type DataSource, rereadable } from "./formats/source.js";
import type { Columns } from "./layouts/columns.js";
import { RowReader } from "./layouts/reader.js";
import type { Row } from "./layouts/row.js";
import { type LengthLimits, RowEncoder } from "./row-encoder.js";
import type { RowTokenizer } from "./row-tokenizer.js";
import { rowsOf, withoutRows } from "./rows.js";
import { foldedText } from "./split.js";

/** The examples of a data file and what was done to make them. */
export interface DataSet<E extends Examples = readonly Example[]> {
  readonly path: string;
  readonly examples: E;
  /** Rows that `maxLength` cut, which lose their end token. */
  readonly truncatedCount: number;
  /** All tokens, and those that the loss counts. */
  readonly tokenCount: number;
  readonly learnedTokenCount: number;
  /** A digest of the examples' tokens and labels, in their order. */
  readonly digest: string;
  readonly notes: DataNotes;
}

/** What is unusual about the rows of a data file, and allowed. */
export interface DataNotes {
  /** Rows that are conversations, which the chat template wrote. */
  readonly conversationCount: number;
  /** Texts that became several examples. */
  readonly splitCount: number;
  /** Rows whose border between prompt and completion lies inside a token, which is learned. */
  readonly splitBorderCount: number;
  /** Assistant turns that the chat template marks without their end token, which is learned all the same. */
  readonly extendedTurnCount: number;
  /** Turns of the assistant that are learned and say nothing: they teach to end at once. */
  readonly emptyTurnCount: number;
  /** Fields of messages, and of rows for the chat template, that change nothing in what it writes. */
  readonly unusedFields: readonly string[];
}

/**
 * Turns rows into examples no longer than the model can read.
 * Throws DataError for a row longer than the context (or, with `maxLength`, cuts it), a row of which nothing is left to learn, and a token outside the vocabulary.
 */
export function encodeRows(rows: readonly Row[], path: string, tokenizer: RowTokenizer, limits: LengthLimits): DataSet {
  const encoder = new RowEncoder(path, tokenizer, limits);
  const faults = new Faults(path);
  const examples = rows.flatMap((row) => faults.tried(() => encoder.encode(row)) ?? []);
  faults.check();
  return { path, examples, ...encoder.counts };
}

/** What `readExamples` makes of a file. */
export interface ReadDataSet extends DataSet<Examples> {
  /** Rows of the whole file, of which `rowLimit` may have chosen some. */
  readonly rowCount: number;
  /** Rows of each layout that was met, by its name. */
  readonly layouts: ReadonlyMap<string, number>;
  /** Fields of objects around the rows, whose lists were read as the rows. */
  readonly listFields: readonly string[];
  /** Fields of rows that nobody reads. */
  readonly unreadFields: readonly string[];
  /** Of each example what its row says (`foldedText`); empty unless asked for. */
  readonly keys: readonly string[];
}

/** How a file is read. */
export interface ReadOptions extends LengthLimits, Columns {
  /** How many rows are used, evenly spread over the file. All when absent. */
  readonly rowLimit?: number;
  /** Whether `keys` are wanted. */
  readonly hasKeys?: boolean;
  /** Ends the reading. */
  readonly signal?: AbortSignal;
  /** Told now and then how many rows of the file are encoded, or left out. */
  onRows?(rowCount: number): void;
}

/**
 * Reads a data file, in any format and layout that `readRows` reads, and turns its rows into examples as they come: a file of any size takes
 * the memory of its tokens alone. Instructions and questions become messages where the tokenizer has a chat template.
 * `rowLimit` chooses as many rows, evenly spread, because neighbouring rows are often alike; the source is then read twice, and a stream
 * is kept in memory for that. Throws as `readRows` and `encodeRows` do, and the signal's reason once that is aborted.
 */
export async function readExamples(source: DataSource, path: string, tokenizer: RowTokenizer, options: ReadOptions): Promise<ReadDataSet> {
  const { rowLimit, signal } = options;
  const encoder = new RowEncoder(path, tokenizer, options);
  const reader = new RowReader(path, { ...options, asMessages: typeof tokenizer.chatTemplate === "string" });
  const faults = new Faults(path);
  const examples = new ExampleTable(options.vocabSize);
  const keys: string[] = [];
  const again = rowLimit === undefined ? source : await rereadable(source);
  const isChosen = rowLimit === undefined ? () => true : evenlySpread(await countRecords(again, reader, signal), rowLimit);
  let rowCount = 0;
  for await (const records of reader.records(again)) {
    signal?.throwIfAborted();
    // What cannot be read is told, chosen or not.
    const chosen = records.filter((record) => isChosen(rowCount++) || record instanceof DataError);
    for (const row of rowsOf(chosen, reader, faults)) {
      for (const example of faults.tried(() => encoder.encode(row)) ?? []) {
        examples.append(example);
        if (options.hasKeys) keys.push(foldedText(row));
      }
    }
    options.onRows?.(rowCount);
  }
  faults.check();
  if (rowCount === 0) throw withoutRows(path);
  return {
    path,
    examples,
    ...encoder.counts,
    rowCount,
    layouts: reader.counts,
    unreadFields: [...reader.unreadFields],
    listFields: [...reader.listFields],
    keys,
  };
}

async function countRecords(source: DataSource, reader: RowReader, signal: AbortSignal | undefined): Promise<number> {
  let count = 0;
  for await (const records of reader.records(source)) {
    signal?.throwIfAborted();
    count += records.length;
  }
  return count;
}

/** Whether a row, asked for one after another from 0, is among `limit` of `count` that are evenly spread. */
export function evenlySpread(count: number, limit: number): (row: number) => boolean {
  let chosen = 0;
  return (row) => {
    if (limit < count && row !== Math.floor((chosen * count) / limit)) return false;
    chosen++;
    return true;
  };
}
