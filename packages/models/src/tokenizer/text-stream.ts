import type { Tokenizer } from "./tokenizer.js";

/** What a decoder writes for bytes that are not yet a character. */
const replacement = "\ufffd";

/**
 * Text of tokens that come one by one after a prompt. A token may hold part of a character's UTF-8 bytes, and a tokenizer may treat a text's
 * first word in its own way: so text is given out once its last character is whole, decoded together with the tokens before.
 * Its parts together are the text of `tokenizer.decode`, but where a vocabulary with a token a byte (SentencePiece's) has bytes in a row that are no
 * text together: of these `decode` keeps nothing, also not what was whole.
 */
export class TextStream {
  readonly #ids: number[];
  /** Where decoding starts: at a whole character that was given out already. */
  #start = 0;
  /** Up to here text was given out. */
  #end: number;

  constructor(
    readonly tokenizer: Pick<Tokenizer, "decode">,
    prompt: readonly number[],
  ) {
    this.#ids = [...prompt];
    this.#end = prompt.length;
  }

  /** The text that a token completes; empty while a character lacks bytes. */
  push(token: number): string {
    this.#ids.push(token);
    return this.#text((text) => !text.endsWith(replacement));
  }

  /** The rest: bytes that no token made a character of. */
  finish(): string {
    return this.#text(() => true);
  }

  #text(isWhole: (text: string) => boolean): string {
    const before = this.tokenizer.decode(this.#ids.slice(this.#start, this.#end));
    const text = this.tokenizer.decode(this.#ids.slice(this.#start));
    if (text.length <= before.length || !isWhole(text)) return "";
    this.#start = this.#end;
    this.#end = this.#ids.length;
    return text.slice(before.length);
  }
}
