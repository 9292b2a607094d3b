import type { ChatMessage } from "../../tokenizer/chat.js";

/** A conversation, and what the chat template is told besides. */
export interface Conversation {
  readonly messages: readonly ChatMessage[];
  /** By message: false for an assistant's turn that is context only (OpenAI's `weight` 0, axolotl's `train` false). All true when absent. */
  readonly isSupervised?: readonly boolean[];
  /** JSON schemas of functions that the model may call. */
  readonly tools?: readonly unknown[];
  readonly documents?: readonly unknown[];
  /** Further names for the template: `chat_template_kwargs`. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

/** One row of a data file; `line` is its 1-based line, in a Parquet file its number. */
export type Row =
  | { readonly kind: "completion"; readonly line: number; readonly prompt: string; readonly completion: string }
  | { readonly kind: "text"; readonly line: number; readonly text: string }
  | ({ readonly kind: "messages"; readonly line: number } & Conversation);
