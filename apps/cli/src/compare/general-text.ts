import { readFile } from "node:fs/promises";
import { type Example, encodeRow, parseRows, type Row, type Tokenizer } from "@lowrank/models";
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
  const content = await readFile(from, "utf8");
  const rows = content.trimStart().startsWith("{") ? parseRows(content, from) : linesOf(content);
  const chosen =
    rows.length <= rowLimit ? rows : Array.from({ length: rowLimit }, (_, i) => rows[Math.floor((i * rows.length) / rowLimit)] as Row);
  const limit = Math.min(tokenLimit, context);
  const examples = chosen
    .map((row) => encodeRow(row, tokenizer, from))
    .map(({ line, ids, labels }) => ({ line, ids: ids.slice(0, limit), labels: labels.slice(0, limit) }))
    .filter(({ labels }) => labels.some((label, i) => i > 0 && label >= 0));
  if (examples.length === 0) throw new UsageError(`${from} holds no text to measure forgetting on. Give lines of two words or more.`);
  const name = path === undefined ? "the prose that ships with lowrank (American speeches and Moby-Dick, public domain)" : shownPath(path);
  return { source: `${examples.length} passages of ${name}, at most ${limit} tokens each`, examples };
}

function linesOf(content: string): Row[] {
  return content.split("\n").flatMap((text, i) => (text.trim() === "" ? [] : [{ kind: "text", line: i + 1, text: text.trim() }]));
}
