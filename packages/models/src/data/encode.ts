import type { ChatMessage } from "../tokenizer/chat.js";
import { DataError } from "./formats/error.js";
import type { Row } from "./layouts/row.js";

/** What the data sets need of a tokenizer. */
export interface RowTokenizer {
  /** Token ids; with the tokenizer's own start token unless `addSpecialTokens` is false. */
  encode(text: string, options?: { readonly addSpecialTokens?: boolean }): readonly number[];
  /** The token that ends a document, or null. */
  readonly eosTokenId: number | null;
  /** Characters of the longest token, by which rows are known to be too long before they are encoded. Unknown when absent. */
  readonly longestToken?: number;
  /** Null where the checkpoint has no chat template. */
  readonly chatTemplate?: string | null;
  /** Throws where the checkpoint has no chat template. */
  applyChatTemplate?(messages: readonly ChatMessage[], options?: { readonly addGenerationPrompt?: boolean }): string;
}

/** The label of a position from which nothing is learned, as in PyTorch's cross-entropy. */
export const ignoredLabel = -100;

/** A row as the model sees it: `labels[i]` is `ids[i]` where it is to be predicted, else -100. */
export interface Example {
  readonly line: number;
  readonly ids: readonly number[];
  readonly labels: readonly number[];
}

/**
 * The prompt and the completion as tokens: `prompt` is exactly what `generate` is given at inference, `completion` what it shall answer.
 * Where neither the prompt ends nor the completion begins with white space, one space stands between them. The completion's tokens are
 * those that it has in the joined text; where the tokenizer would merge across the border, it is encoded on its own. The end token follows.
 */
export function encodeCompletion(tokenizer: RowTokenizer, prompt: string, completion: string): { prompt: number[]; completion: number[] } {
  const before = [...tokenizer.encode(prompt)];
  // A tokenizer that ends every text with the end token must not end the prompt with it.
  while (before.length > 0 && before.at(-1) === tokenizer.eosTokenId && before.length > 1) before.pop();
  const separator = prompt === "" || /\s$/.test(prompt) || /^\s/.test(completion) ? "" : " ";
  const joined = tokenizer.encode(prompt + separator + completion);
  const isPrefix = before.every((id, i) => joined[i] === id);
  const after = isPrefix ? joined.slice(before.length) : [...tokenizer.encode(separator + completion, { addSpecialTokens: false })];
  return { prompt: before, completion: ended(after, tokenizer) };
}

/** The ids with the end token after them, once. */
function ended(ids: readonly number[], { eosTokenId }: RowTokenizer): number[] {
  return eosTokenId === null || ids.at(-1) === eosTokenId ? [...ids] : [...ids, eosTokenId];
}

/** One row's tokens: the loss counts the completion, the assistant's turns, or all of a text (its first token aside, which nothing predicts). */
export function encodeRow(row: Row, tokenizer: RowTokenizer, path: string): Example {
  switch (row.kind) {
    case "completion": {
      if (row.completion.trim() === "") {
        throw new DataError(
          `${path}:${row.line}: "completion" is empty, so the row teaches nothing. Give it a completion or remove the row.`,
          path,
          row.line,
        );
      }
      const { prompt, completion } = encodeCompletion(tokenizer, row.prompt, row.completion);
      return { line: row.line, ids: [...prompt, ...completion], labels: [...prompt.map(() => ignoredLabel), ...completion] };
    }
    case "text": {
      if (row.text.trim() === "")
        throw new DataError(`${path}:${row.line}: "text" is empty, so the row teaches nothing. Remove the row.`, path, row.line);
      const ids = ended(tokenizer.encode(row.text), tokenizer);
      return { line: row.line, ids, labels: ids };
    }
    case "messages":
      return encodeMessages(row, tokenizer, path);
  }
}

function encodeMessages(row: Row & { kind: "messages" }, tokenizer: RowTokenizer, path: string): Example {
  const render = (messages: readonly ChatMessage[], addGenerationPrompt = false): string => {
    if (!tokenizer.applyChatTemplate) {
      const remedy = 'Use {"prompt","completion"} rows, or a checkpoint whose tokenizer_config.json has one';
      throw new DataError(
        `${path}:${row.line}: the row has "messages" but the model's tokenizer has no chat template. ${remedy}.`,
        path,
        row.line,
      );
    }
    try {
      return tokenizer.applyChatTemplate(messages, { addGenerationPrompt });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new DataError(`${path}:${row.line}: ${reason} Rows of {"prompt","completion"} need no template.`, path, row.line);
    }
  };
  const ids: number[] = [];
  const labels: number[] = [];
  const push = (text: string, isLearned: boolean): void => {
    if (text === "") return;
    const piece = tokenizer.encode(text, { addSpecialTokens: false });
    for (const id of piece) {
      ids.push(id);
      labels.push(isLearned ? id : ignoredLabel);
    }
  };
  const whole = render(row.messages);
  let done = 0;
  for (const [index, message] of row.messages.entries()) {
    if (message.role !== "assistant") continue;
    const before = render(row.messages.slice(0, index), true);
    const through = render(row.messages.slice(0, index + 1));
    // A template that rewrites earlier turns has no such borders: then the loss counts everything.
    if (!through.startsWith(before) || !whole.startsWith(through) || before.length < done) {
      ids.length = labels.length = done = 0;
      push(whole, true);
      return { line: row.line, ids, labels };
    }
    push(whole.slice(done, before.length), false);
    push(whole.slice(before.length, through.length), true);
    done = through.length;
  }
  if (done === 0) {
    throw new DataError(
      `${path}:${row.line}: the conversation has no turn with the role "assistant", so it teaches nothing. Add one or remove the row.`,
      path,
      row.line,
    );
  }
  push(whole.slice(done), false);
  return { line: row.line, ids, labels };
}
