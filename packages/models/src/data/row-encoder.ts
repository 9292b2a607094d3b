import type { TrainedTurns } from "./conversation.js";
import type { DataSet } from "./data-set.js";
import { ExampleDigest } from "./digest.js";
import { EncodingNotes, encodeRow } from "./encode.js";
import { type Example, ignoredLabel } from "./example.js";
import { DataError } from "./formats/error.js";
import type { Row } from "./layouts/row.js";
import { characterCount, characterLimit, shortened } from "./row-length.js";
import type { RowTokenizer } from "./row-tokenizer.js";

/** How long an example may be. */
export interface LengthLimits {
  /** Longer rows are cut to this many tokens; without it a row longer than the context is an error. */
  readonly maxLength?: number;
  /** The model's context (max_position_embeddings). */
  readonly context: number;
  /** Vocabulary size of the model; an id outside is an error. */
  readonly vocabSize?: number;
  /** Texts longer than `maxLength` become several examples, where else they lose what is behind it, the end token too. */
  readonly isSplit?: boolean;
  /** Which of a conversation's assistant turns are learned. Default "all-turns". */
  readonly trainOn?: TrainedTurns;
}

/** Encodes rows, and counts what it made of them. */
export class RowEncoder {
  readonly #notes = new EncodingNotes();
  readonly #digest = new ExampleDigest();
  #truncatedCount = 0;
  #splitCount = 0;
  #conversationCount = 0;
  #tokenCount = 0;
  #learnedTokenCount = 0;

  constructor(
    readonly path: string,
    readonly tokenizer: RowTokenizer,
    readonly limits: LengthLimits,
  ) {}

  /** The row's examples: one, or several of a text that is split. Throws DataError where none can be made of it. */
  encode(row: Row): readonly Example[] {
    const { maxLength, context, isSplit = false, trainOn = "all-turns" } = this.limits;
    const limit = Math.min(maxLength ?? context, context);
    const mayBeLonger = maxLength !== undefined;
    const isPieces = mayBeLonger && isSplit && row.kind === "text";
    const mostCharacters = characterLimit(limit, this.tokenizer.longestToken);
    const characters = characterCount(row);
    const isLong = characters > mostCharacters && !isPieces;
    if (isLong && !mayBeLonger)
      this.#fail(row, `the row has ${characters} characters, more than the model's context of ${context} tokens holds`, this.#shorten());
    const full = encodeRow(isLong ? shortened(row, mostCharacters) : row, this.tokenizer, this.path, { notes: this.#notes, trainOn });
    this.#checkVocabulary(row, full);
    if (row.kind === "messages") this.#conversationCount++;
    const count = full.ids.length;
    if (count <= limit)
      return [this.#counted(row, full, `its ${count} tokens leave nothing to predict`, "Give it more text or remove the row")];
    if (!mayBeLonger) this.#fail(row, `the row has ${count} tokens but the model's context is ${context}`, this.#shorten());
    if (!isPieces) {
      const cut = { ...full, ids: full.ids.slice(0, limit), labels: full.labels.slice(0, limit) };
      this.#truncatedCount++;
      return [
        this.#counted(
          row,
          cut,
          `after cutting its ${count} tokens to ${limit} only the prompt is left`,
          "Raise --max-length or shorten the prompt",
        ),
      ];
    }
    this.#splitCount++;
    // A last piece of one token, which nothing predicts, takes one of the piece before.
    const starts = Array.from({ length: Math.ceil(count / limit) }, (_, i) => Math.min(i * limit, count - 2));
    return starts.map((start, i) => {
      const end = starts[i + 1] ?? count;
      return this.#counted(row, { ...full, ids: full.ids.slice(start, end), labels: full.labels.slice(start, end) }, "", "");
    });
  }

  /** What was counted so far. */
  get counts(): Omit<DataSet, "path" | "examples"> {
    const { splitBorderCount, extendedTurnCount, emptyTurnCount, unreadFields } = this.#notes;
    return {
      truncatedCount: this.#truncatedCount,
      tokenCount: this.#tokenCount,
      learnedTokenCount: this.#learnedTokenCount,
      digest: this.#digest.digest,
      notes: {
        conversationCount: this.#conversationCount,
        splitCount: this.#splitCount,
        splitBorderCount,
        extendedTurnCount,
        emptyTurnCount,
        unusedFields: unreadFields,
      },
    };
  }

  #counted(row: Row, example: Example, fact: string, remedy: string): Example {
    const learned = example.labels.reduce((count, label, i) => count + (i > 0 && label !== ignoredLabel ? 1 : 0), 0);
    if (learned === 0) this.#fail(row, `nothing to learn from this row: ${fact}`, remedy);
    this.#tokenCount += example.ids.length;
    this.#learnedTokenCount += learned;
    this.#digest.add(example);
    return example;
  }

  #checkVocabulary(row: Row, { ids }: Example): void {
    const { vocabSize = Number.POSITIVE_INFINITY } = this.limits;
    const stray = ids.find((id) => id >= vocabSize || id < 0);
    if (stray === undefined) return;
    const fact = `the tokenizer gives token ${stray} but the model knows 0 to ${vocabSize - 1}`;
    this.#fail(row, fact, "Use the tokenizer that belongs to the model");
  }

  #shorten(): string {
    return `Shorten or split the row, or cut long rows with --max-length ${this.limits.context}`;
  }

  #fail({ line }: Row, fact: string, remedy: string): never {
    throw new DataError(`${this.path}:${line}: ${fact}. ${remedy}.`, this.path, line);
  }
}
