import type { Output } from "./output.js";

/** Shows texts while they are generated: the first part by part, each of the others once those before it are whole. */
export class StreamedTexts {
  /** Of each text, what is not shown yet. */
  readonly #waiting: string[];
  /** The text that is being shown. */
  #row = 0;

  constructor(
    texts: readonly string[],
    readonly output: Pick<Output, "say" | "whole" | "part">,
  ) {
    this.#waiting = [...texts];
    this.#show();
  }

  push(text: string, row: number): void {
    this.#waiting[row] += text;
    if (row === this.#row) this.#show();
  }

  /** Shows what is left of all texts. */
  finish(): void {
    for (; this.#row < this.#waiting.length; this.#row++) {
      if (this.#row > 0) this.output.say();
      this.output.whole(this.#waiting[this.#row] ?? "");
    }
  }

  #show(): void {
    const text = this.#waiting[this.#row] ?? "";
    if (text !== "") this.output.part(text);
    this.#waiting[this.#row] = "";
  }
}
