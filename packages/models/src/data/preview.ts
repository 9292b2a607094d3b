import { Characters } from "./characters.js";
import type { ReadOptions } from "./data-set.js";
import { type Example, ignoredLabel } from "./example.js";
import { DataError } from "./formats/error.js";
import type { DataSource } from "./formats/source.js";
import { RowReader } from "./layouts/reader.js";
import type { Row } from "./layouts/row.js";
import { RowEncoder } from "./row-encoder.js";
import type { RowTokenizer } from "./row-tokenizer.js";
import { withoutRows } from "./rows.js";
import { foldedKey, foldedText } from "./split.js";

/** What a preview needs of a tokenizer besides. */
export interface PreviewTokenizer extends RowTokenizer {
  decode(ids: Iterable<number>, options?: { readonly skipSpecialTokens?: boolean }): string;
  /** The token of an id as the vocabulary spells it, or null. */
  token(id: number): string | null;
}

/** Neighbouring tokens that are all in the loss or all not, or one special token. */
export interface PreviewPart {
  readonly text: string;
  readonly isLearned: boolean;
  readonly isSpecial: boolean;
}

/** A row as the model sees it. */
export interface PreviewRow {
  readonly line: number;
  readonly parts: readonly PreviewPart[];
  readonly tokenCount: number;
  readonly learnedTokenCount: number;
}

/** What a data file holds, and what is odd about it. */
export interface Preview {
  readonly path: string;
  /** The first rows. */
  readonly rows: readonly PreviewRow[];
  readonly rowCount: number;
  readonly layouts: ReadonlyMap<string, number>;
  /** Fields of objects around the rows, whose lists were read as the rows. */
  readonly listFields: readonly string[];
  readonly tokenCount: number;
  readonly learnedTokenCount: number;
  /** Tokens of each example, in their order. */
  readonly lengths: readonly number[];
  /** Rows that cannot be used, with the reason; a row longer than the context is among them unless `maxLength` cuts it. Of a file without rows that it has none. */
  readonly errors: readonly DataError[];
  readonly truncatedCount: number;
  readonly splitBorderCount: number;
  readonly extendedTurnCount: number;
  /** Turns of the assistant that are learned and say nothing. */
  readonly emptyTurnCount: number;
  readonly unusedFields: readonly string[];
  /** Rows that say what an earlier one says, white space, case and form of characters aside. */
  readonly duplicateCount: number;
  /** Answers that several different prompts have: how often, the most frequent first. */
  readonly repeatedAnswers: readonly { readonly text: string; readonly count: number }[];
  /** Letters of each script, the most frequent first; and control characters by their code. */
  readonly scripts: readonly { readonly name: string; readonly count: number }[];
  readonly controls: readonly { readonly code: number; readonly count: number }[];
  /** Of each row what it says (`foldedText`), by which two files are compared. */
  readonly keys: ReadonlySet<string>;
}

/** How much is shown. */
export interface PreviewOptions extends ReadOptions {
  /** Rows that are shown whole. Default 3. */
  readonly shownCount?: number;
}

/** Answers that are kept as examples of repeated ones. */
const mostAnswers = 10;

/**
 * Reads a data file as `readExamples` does, and says what is learned and what is odd, where that would stop at what is wrong. Throws DataError
 * where the file as a whole cannot be read.
 */
export async function previewData(
  source: DataSource,
  path: string,
  tokenizer: PreviewTokenizer,
  { shownCount = 3, ...options }: PreviewOptions,
): Promise<Preview> {
  const reader = new RowReader(path, { ...options, asMessages: typeof tokenizer.chatTemplate === "string" });
  const encoder = new RowEncoder(path, tokenizer, options);
  const rows: PreviewRow[] = [];
  const lengths: number[] = [];
  const errors: DataError[] = [];
  const keys = new Set<string>();
  const answers = new Map<string, { text: string; count: number }>();
  const characters = new Characters();
  let [rowCount, duplicateCount] = [0, 0];
  for await (const records of reader.records(source)) {
    options.signal?.throwIfAborted();
    for (const record of records) {
      rowCount++;
      try {
        if (record instanceof DataError) throw record;
        const row = reader.row(record);
        for (const text of textsOf(row)) characters.add(text);
        const key = foldedText(row);
        if (keys.has(key)) duplicateCount++;
        keys.add(key);
        countAnswer(row, answers);
        for (const example of encoder.encode(row)) {
          lengths.push(example.ids.length);
          if (rows.length < shownCount) rows.push(previewRow(example, tokenizer));
        }
      } catch (error) {
        if (!(error instanceof DataError)) throw error;
        errors.push(error);
      }
    }
    options.onRows?.(rowCount);
  }
  if (rowCount === 0) errors.push(withoutRows(path));
  const { tokenCount, learnedTokenCount, truncatedCount, notes } = encoder.counts;
  const { splitBorderCount, extendedTurnCount, emptyTurnCount } = notes;
  const repeated = [...answers.values()].filter(({ count }) => count > 1).sort((a, b) => b.count - a.count);
  return {
    path,
    rows,
    rowCount,
    layouts: reader.counts,
    listFields: [...reader.listFields],
    tokenCount,
    learnedTokenCount,
    lengths,
    errors,
    truncatedCount,
    splitBorderCount,
    extendedTurnCount,
    emptyTurnCount,
    unusedFields: [...reader.unreadFields, ...notes.unusedFields],
    duplicateCount,
    repeatedAnswers: repeated.slice(0, mostAnswers),
    scripts: characters.scripts,
    controls: characters.controls,
    keys,
  };
}

function textsOf(row: Row): readonly string[] {
  if (row.kind === "text") return [row.text];
  if (row.kind === "completion") return [row.prompt, row.completion];
  return row.messages.map(({ content }) => (typeof content === "string" ? content : ""));
}

/** Counts what is learned of a row, by what it says. */
function countAnswer(row: Row, answers: Map<string, { text: string; count: number }>): void {
  const last = row.kind === "messages" ? row.messages.findLast(({ role }) => role === "assistant")?.content : null;
  const answer = row.kind === "completion" ? row.completion : last;
  if (typeof answer !== "string" || answer.trim() === "") return;
  const key = foldedKey(answer);
  const known = answers.get(key);
  if (known) known.count++;
  else answers.set(key, { text: answer.trim(), count: 1 });
}

/** An example's tokens as text, with what is in the loss. */
export function previewRow({ line, ids, labels }: Example, tokenizer: PreviewTokenizer): PreviewRow {
  const specials = new Set(tokenizer.specialTokens ?? []);
  const kinds = ids.map((id, i) => ({
    isLearned: labels[i] !== ignoredLabel && i > 0,
    isSpecial: specials.has(tokenizer.token(id) ?? ""),
  }));
  const parts: PreviewPart[] = [];
  let before = "";
  for (let start = 0, end = 1; start < ids.length; start = end++) {
    const kind = kinds[start] as (typeof kinds)[number]; // start < length
    while (!kind.isSpecial && end < ids.length && kinds[end]?.isLearned === kind.isLearned && !kinds[end]?.isSpecial) end++;
    // Decoded together with what is before, because a tokenizer may drop the space in front of a text's first word.
    const whole = tokenizer.decode(ids.slice(0, end), { skipSpecialTokens: false });
    const text = whole.startsWith(before)
      ? whole.slice(before.length)
      : tokenizer.decode(ids.slice(start, end), { skipSpecialTokens: false });
    before = whole;
    parts.push({ text, ...kind });
  }
  return { line, parts, tokenCount: ids.length, learnedTokenCount: kinds.filter(({ isLearned }) => isLearned).length };
}
