import type { ChatMessage, ChatOptions, RenderedChat } from "../tokenizer/chat.js";

/** Token ids, and of each the characters [start, end) of the text that it stands for, in UTF-16 units; [0, 0] where it stands for none. */
export interface Encoding {
  readonly ids: readonly number[];
  readonly offsets: readonly (readonly [start: number, end: number])[];
}

/** What the data sets need of a tokenizer. */
export interface RowTokenizer {
  /** Token ids; with the tokenizer's own begin and end tokens unless `addSpecialTokens` is false. */
  encode(text: string, options?: { readonly addSpecialTokens?: boolean }): readonly number[];
  /** The same with what they stand for. Without it texts are encoded in pieces between the borders of what is learned. */
  encodeWithOffsets?(text: string, options?: { readonly addSpecialTokens?: boolean }): Encoding;
  /** The token that ends a document, or null. */
  readonly eosTokenId: number | null;
  /** The token that begins one, or null. */
  readonly bosTokenId?: number | null;
  /** Characters of the longest token, by which rows are known to be too long before they are encoded. Unknown when absent. */
  readonly longestToken?: number;
  /** Null where the checkpoint has no chat template. */
  readonly chatTemplate?: string | null;
  /** The texts of special tokens, and of those that end a generation. */
  readonly specialTokens?: readonly string[];
  readonly endTokens?: readonly string[];
  /** Throws where the checkpoint has no chat template. */
  applyChatTemplate?(messages: readonly ChatMessage[], options?: ChatOptions): string;
  /** The same, with the parts that the template marks as the assistant's. */
  renderChat?(messages: readonly ChatMessage[], options?: ChatOptions): RenderedChat;
}

/** How a tokenizer renders conversations; null where it has no chat template. */
export function rendererOf(tokenizer: RowTokenizer): NonNullable<RowTokenizer["renderChat"]> | null {
  if (tokenizer.renderChat) return tokenizer.renderChat.bind(tokenizer);
  const apply = tokenizer.applyChatTemplate?.bind(tokenizer);
  return apply ? (messages, options) => ({ text: apply(messages, options), generation: [] }) : null;
}

/**
 * A text's tokens and what they stand for. A tokenizer that knows no offsets gives the pieces between `borders`, ascending: of the whole text
 * where what stands before the first of them begins its tokens, else one by one.
 */
export function encodingOf(
  tokenizer: RowTokenizer,
  text: string,
  borders: readonly number[],
  options?: { readonly addSpecialTokens?: boolean },
): Encoding {
  if (tokenizer.encodeWithOffsets) return tokenizer.encodeWithOffsets(text, options);
  const ends = [...new Set([...borders.filter((border) => border > 0 && border < text.length), text.length])];
  const [first = text.length] = ends;
  const before = first === text.length ? null : tokenizer.encode(text.slice(0, first), options);
  const whole = ends.length > 2 ? null : tokenizer.encode(text, options);
  const ids: number[] = [];
  const offsets: (readonly [number, number])[] = [];
  const add = (piece: readonly number[], start: number, end: number): void => {
    for (const id of piece) {
      ids.push(id);
      offsets.push([start, end]);
    }
  };
  if (whole && (before === null || before.every((id, i) => id === whole[i]))) {
    add(whole.slice(0, before?.length ?? whole.length), 0, first);
    add(whole.slice(before?.length ?? whole.length), first, text.length);
    return { ids, offsets };
  }
  let start = 0;
  for (const end of ends) {
    add(tokenizer.encode(text.slice(start, end), start === 0 ? options : { addSpecialTokens: false }), start, end);
    start = end;
  }
  return { ids, offsets };
}
