import { ExampleDigest } from "./digest.js";
import { type Example, encodeRow, ignoredLabel, type RowTokenizer } from "./encode.js";
import { type Examples, ExampleTable } from "./examples.js";
import { Faults } from "./faults.js";
import { DataError } from "./formats/error.js";
import { readRecords } from "./formats/format.js";
import { type DataSource, rereadable } from "./formats/source.js";
import type { Columns } from "./layouts/columns.js";
import { RowReader } from "./layouts/reader.js";
import type { Row } from "./layouts/row.js";
import { characterCount, characterLimit, shortened } from "./row-length.js";
import { rowsOf, withoutRows } from "./rows.js";

/** How long an example may be. */
export interface LengthLimits {
  /** Longer rows are cut to this many tokens; without it a row longer than the context is an error. */
  readonly maxLength?: number;
  /** The model's context (max_position_embeddings). */
  readonly context: number;
  /** Vocabulary size of the model; an id outside is an error. */
  readonly vocabSize?: number;
}

/** The examples of a data file and what was done to make them. */
export interface DataSet<E extends Examples = readonly Example[]> {
  readonly path: string;
  readonly examples: E;
  /** Rows that `maxLength` cut. */
  readonly truncatedCount: number;
  /** All tokens, and those that the loss counts. */
  readonly tokenCount: number;
  readonly learnedTokenCount: number;
  /** A digest of the examples' tokens and labels, in their order. */
  readonly digest: string;
}

/** Texts that are remembered: neighbouring rows often have the same prompt. */
const memoryLimit = 64;

/** The tokenizer with a memory of the last texts. */
function remembering(tokenizer: RowTokenizer): RowTokenizer {
  const known = new Map<string, readonly number[]>();
  const remembered: RowTokenizer = {
    eosTokenId: tokenizer.eosTokenId,
    encode(text, options) {
      if (options?.addSpecialTokens === false) return tokenizer.encode(text, options);
      const ids = known.get(text) ?? tokenizer.encode(text);
      if (known.size === memoryLimit) known.clear();
      known.set(text, ids);
      return ids;
    },
  };
  const { applyChatTemplate, chatTemplate } = tokenizer;
  return applyChatTemplate
    ? { ...remembered, ...(chatTemplate === undefined ? {} : { chatTemplate }), applyChatTemplate: applyChatTemplate.bind(tokenizer) }
    : remembered;
}

/** Encodes rows, and counts what it made of them. */
class RowEncoder {
  truncatedCount = 0;
  tokenCount = 0;
  learnedTokenCount = 0;
  readonly #tokenizer: RowTokenizer;
  readonly #longestToken: number | undefined;
  readonly #digest = new ExampleDigest();

  constructor(
    readonly path: string,
    tokenizer: RowTokenizer,
    readonly limits: LengthLimits,
  ) {
    this.#tokenizer = remembering(tokenizer);
    this.#longestToken = tokenizer.longestToken;
  }

  /** The row's example. Throws DataError where none can be made of it. */
  encode(row: Row): Example {
    const { path } = this;
    const { maxLength, context, vocabSize = Number.POSITIVE_INFINITY } = this.limits;
    const limit = Math.min(maxLength ?? context, context);
    const mostCharacters = characterLimit(limit, this.#longestToken);
    const characters = characterCount(row);
    if (characters > mostCharacters && maxLength === undefined) {
      throw new DataError(
        `${path}:${row.line}: the row has ${characters} characters, more than the model's context of ${context} tokens holds. Shorten or split the row, or cut long rows with --max-length ${context}.`,
        path,
        row.line,
      );
    }
    const full = encodeRow(characters > mostCharacters ? shortened(row, mostCharacters) : row, this.#tokenizer, path);
    const stray = full.ids.find((id) => id >= vocabSize || id < 0);
    if (stray !== undefined) {
      throw new DataError(
        `${path}:${row.line}: the tokenizer gives token ${stray} but the model knows 0 to ${vocabSize - 1}. Use the tokenizer that belongs to the model.`,
        path,
        row.line,
      );
    }
    const isTooLong = full.ids.length > limit;
    if (isTooLong && maxLength === undefined) {
      throw new DataError(
        `${path}:${row.line}: the row has ${full.ids.length} tokens but the model's context is ${context}. Shorten or split the row, or cut long rows with --max-length ${context}.`,
        path,
        row.line,
      );
    }
    const example = isTooLong ? { ...full, ids: full.ids.slice(0, limit), labels: full.labels.slice(0, limit) } : full;
    const learned = example.labels.reduce((count, label, i) => count + (i > 0 && label !== ignoredLabel ? 1 : 0), 0);
    if (learned === 0) {
      const reason = isTooLong
        ? `after cutting its ${full.ids.length} tokens to ${limit} only the prompt is left`
        : `its ${full.ids.length} tokens leave nothing to predict`;
      const remedy = isTooLong ? "Raise --max-length or shorten the prompt" : "Give it more text or remove the row";
      throw new DataError(`${path}:${row.line}: nothing to learn from this row: ${reason}. ${remedy}.`, path, row.line);
    }
    if (isTooLong) this.truncatedCount++;
    this.tokenCount += example.ids.length;
    this.learnedTokenCount += learned;
    this.#digest.add(example);
    return example;
  }

  dataSet<E extends Examples>(examples: E): DataSet<E> {
    const { path, truncatedCount, tokenCount, learnedTokenCount } = this;
    return { path, examples, truncatedCount, tokenCount, learnedTokenCount, digest: this.#digest.digest };
  }
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
  return encoder.dataSet(examples);
}

/** What `readExamples` makes of a file. */
export interface ReadDataSet extends DataSet<Examples> {
  /** Rows of the whole file, of which `rowLimit` may have chosen some. */
  readonly rowCount: number;
  /** Rows of each layout that was met, by its name. */
  readonly layouts: ReadonlyMap<string, number>;
  /** Fields of rows that nobody reads. */
  readonly unreadFields: readonly string[];
}

/** How a file is read. */
export interface ReadOptions extends LengthLimits, Columns {
  /** How many rows are used, evenly spread over the file. All when absent. */
  readonly rowLimit?: number;
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
  const again = rowLimit === undefined ? source : await rereadable(source);
  const isChosen = rowLimit === undefined ? () => true : evenlySpread(await countRecords(again, path, signal), rowLimit);
  let rowCount = 0;
  for await (const records of readRecords(again, path)) {
    signal?.throwIfAborted();
    // What cannot be read is told, chosen or not.
    const chosen = records.filter((record) => isChosen(rowCount++) || record instanceof DataError);
    for (const row of rowsOf(chosen, reader, faults)) {
      const example = faults.tried(() => encoder.encode(row));
      if (example) examples.append(example);
    }
    options.onRows?.(rowCount);
  }
  faults.check();
  if (rowCount === 0) throw withoutRows(path);
  return { ...encoder.dataSet(examples), rowCount, layouts: reader.counts, unreadFields: [...reader.unreadFields] };
}

async function countRecords(source: DataSource, path: string, signal: AbortSignal | undefined): Promise<number> {
  let count = 0;
  for await (const records of readRecords(source, path)) {
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
