import {
  type DataSource,
  type Example,
  encodeRow,
  evenlySpread,
  isDataFile,
  type Row,
  readLines,
  readRows,
  rereadable,
  type Tokenizer,
} from "@lowrank/models";
import { withSource } from "../data/source.js";
import { UsageError } from "../failure.js";
import { generalTextFile } from "../quickstart-assets.js";
import { shownPath } from "../report/path.js";

/** Text that has nothing to do with the task, on which forgetting is measured. */
export interface GeneralText {
  /** What it is, for people. */
  readonly source: string;
  readonly examples: readonly Example[];
}

const rowLimit = 64;
const tokenLimit = 128;

/**
 * The text of a file (`{"text"}` rows, or plain lines), or the prose that ships with the command line; 64 rows, evenly spread, each cut to
 * 128 tokens or the context. Rejects with UsageError when nothing is left of it.
 */
export async function generalText(path: string | undefined, tokenizer: Tokenizer, context: number): Promise<GeneralText> {
  const from = path ?? generalTextFile();
  const rows = await withSource(from, (source) => selectedRows(source, from));
  const limit = Math.min(tokenLimit, context);
  const examples = rows
    .map((row) => encodeRow(row, tokenizer, from))
    .map(({ line, ids, labels }) => ({ line, ids: ids.slice(0, limit), labels: labels.slice(0, limit) }))
    .filter(({ labels }) => labels.some((label, i) => i > 0 && label >= 0));
  if (examples.length === 0) throw new UsageError(`${from} holds no text to measure forgetting on. Give lines of two words or more.`);
  const name = path === undefined ? "the prose that ships with lowrank (American speeches and Moby-Dick, public domain)" : shownPath(path);
  return { source: `${examples.length} passages of ${name}, at most ${limit} tokens each`, examples };
}

/** 64 rows, evenly spread over a data file or the lines of a plain text. */
async function selectedRows(source: DataSource, path: string): Promise<Row[]> {
  const again = await rereadable(source);
  const rowsOf = isDataFile(path) || !(await isPlain(again, path)) ? () => readRows(again, path) : () => plainRows(again, path);
  let count = 0;
  for await (const _ of rowsOf()) count++;
  const isChosen = evenlySpread(count, rowLimit);
  const rows: Row[] = [];
  let row = 0;
  for await (const each of rowsOf()) if (isChosen(row++)) rows.push(each);
  return rows;
}

/** Whether the first line that is not blank begins no object and no list. */
async function isPlain(source: DataSource, path: string): Promise<boolean> {
  for await (const { texts } of readLines(source, path)) {
    const first = texts.find((text) => text.trim() !== "");
    if (first !== undefined) return !/^\s*[{[]/.test(first);
  }
  return true;
}

async function* plainRows(source: DataSource, path: string): AsyncGenerator<Row> {
  for await (const { first, texts } of readLines(source, path))
    for (const [i, text] of texts.entries()) if (text.trim() !== "") yield { kind: "text", line: first + i, text: text.trim() };
}
