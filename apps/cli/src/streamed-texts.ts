import { TextStream, type Tokenizer } from "@lowrank/models";
import type { Output } from "./output.js";

/** Shows texts while they are generated: the first token by token, each of the others once those before it are whole. */
export class StreamedTexts {
  readonly #streams: readonly TextStream[];
  /** Of each text, what is not shown yet. */
  readonly #waiting: string[];
  /** The text that is being shown. */
  #row = 0;

  constructor(
    texts: readonly string[],
    prompts: readonly (readonly number[])[],
    tokenizer: Pick<Tokenizer, "decode">,
    readonly output: Pick<Output, "say" | "whole" | "part">,
  ) {
    this.#streams = prompts.map((prompt) => new TextStream(tokenizer, prompt));
    this.#waiting = [...texts];
    this.#show();
  }

  push(token: number, row: number): void {
    this.#waiting[row] += this.#streams[row]?.push(token) ?? "";
    if (row === this.#row) this.#show();
  }

  /** Shows what is left of all texts. */
  finish(): void {
    for (; this.#row < this.#streams.length; this.#row++) {
      if (this.#row > 0) this.output.say();
      this.#waiting[this.#row] += this.#streams[this.#row]?.finish() ?? "";
      this.output.whole(this.#waiting[this.#row] ?? "");
    }
  }

  #show(): void {
    const text = this.#waiting[this.#row] ?? "";
    if (text !== "") this.output.part(text);
    this.#waiting[this.#row] = "";
  }
}
