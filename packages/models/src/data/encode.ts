import { type ConversationNotes, encodeConversation, type TrainedTurns } from "./conversation.js";
import { type Example, ignoredLabel } from "./example.js";
import { DataError } from "./formats/error.js";
import type { Row } from "./layouts/row.js";
import { type Encoding, encodingOf, type RowTokenizer } from "./row-tokenizer.js";

/** What was met while rows were encoded. */
export class EncodingNotes implements ConversationNotes {
  /** Rows whose border between prompt and completion lies inside a token, which is learned. */
  splitBorderCount = 0;
  extendedTurnCount = 0;
  emptyTurnCount = 0;
  readonly unchanging: Map<string, number> = new Map();
  readonly used: Set<string> = new Set();

  /** Fields of messages that were given to the chat template and change nothing. */
  get unreadFields(): string[] {
    return [...this.unchanging.keys()].filter((name) => !this.used.has(name));
  }
}

/** The ids of a text as a prompt is given to a model: with the tokenizer's begin token, once. */
export function encodePrompt(tokenizer: RowTokenizer, text: string): number[] {
  const { ids, offsets } = encodeText(tokenizer, text);
  // A tokenizer that ends every text with the end token must not end the prompt with it.
  let count = ids.length;
  while (count > 1 && ids[count - 1] === tokenizer.eosTokenId && offsets[count - 1]?.[1] === 0) count--;
  return ids.slice(0, count);
}

/** A text with the tokenizer's begin and end tokens; one that begins with the begin token is not given another. */
function encodeText(tokenizer: RowTokenizer, text: string, borders: readonly number[] = []): Encoding {
  const encoding = encodingOf(tokenizer, text, borders);
  const [first, second] = encoding.ids;
  const isTwice = first !== undefined && first === tokenizer.bosTokenId && second === first && encoding.offsets[0]?.[1] === 0;
  return isTwice ? { ids: encoding.ids.slice(1), offsets: encoding.offsets.slice(1) } : encoding;
}

/**
 * The tokens of prompt and completion joined, nothing between them, and the end token: those that reach into the completion are its own, and
 * `isSplit` says that the first of them begins in the prompt.
 */
export function encodeCompletion(
  tokenizer: RowTokenizer,
  prompt: string,
  completion: string,
): { prompt: number[]; completion: number[]; isSplit: boolean } {
  const { ids, offsets } = encodeText(tokenizer, prompt + completion, [prompt.length]);
  const found = offsets.findIndex(([, end]) => end > prompt.length);
  const border = found < 0 ? ids.length : found;
  const isSplit = found >= 0 && (offsets[found]?.[0] ?? 0) < prompt.length;
  return { prompt: ids.slice(0, border), completion: ended(ids.slice(border), tokenizer), isSplit };
}

/** The ids with the end token after them, once. */
function ended(ids: readonly number[], { eosTokenId }: RowTokenizer): number[] {
  return eosTokenId === null || ids.at(-1) === eosTokenId ? [...ids] : [...ids, eosTokenId];
}

/**
 * One row's tokens. The loss counts the tokens that reach into the completion or an assistant's turn, its end token included, or all of a
 * text (its first token aside, which nothing predicts). Throws DataError where the row teaches nothing, or cannot be rendered.
 */
export function encodeRow(
  row: Row,
  tokenizer: RowTokenizer,
  path: string,
  { notes = new EncodingNotes(), trainOn = "all-turns" }: { readonly notes?: EncodingNotes; readonly trainOn?: TrainedTurns } = {},
): Example {
  const isEmpty = (field: string): DataError =>
    new DataError(`${path}:${row.line}: "${field}" is empty, so the row teaches nothing. Fill it or remove the row.`, path, row.line);
  switch (row.kind) {
    case "completion": {
      if (row.completion.trim() === "") throw isEmpty("completion");
      const { prompt, completion, isSplit } = encodeCompletion(tokenizer, row.prompt, row.completion);
      if (isSplit) notes.splitBorderCount++;
      return { line: row.line, ids: [...prompt, ...completion], labels: [...prompt.map(() => ignoredLabel), ...completion] };
    }
    case "text": {
      if (row.text.trim() === "") throw isEmpty("text");
      const ids = ended(encodeText(tokenizer, row.text).ids, tokenizer);
      return { line: row.line, ids, labels: ids };
    }
    case "messages":
      return encodeConversation(row, tokenizer, path, { notes, trainOn });
  }
}
