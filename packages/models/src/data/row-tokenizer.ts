import type { ChatMessage, ChatOptions, RenderedChat } from "../tokenizer/chat.js";

/** Token ids, and of each the characters [start, end) of the text that it stands for, in UTF-16 units; [0, 0] where it stands for none. */
export interface Encoding {
  readonly ids: readonly number[];
  readonly offsets: readonly (readonly [start: number, end: number])[];
}

/** What the data sets need of a tokenizer. */
export interface RowTokenizer {
  /** Token ids and what they stand for; with the tokenizer's own begin and end tokens unless `addSpecialTokens` is false. */
  encodeWithOffsets(text: string, options?: { readonly addSpecialTokens?: boolean }): Encoding;
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
  renderChat?(messages: readonly ChatMessage[], options?: ChatOptions): RenderedChat;
}
