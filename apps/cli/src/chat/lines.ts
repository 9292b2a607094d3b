import { read } from "node:fs";
import { promisify } from "node:util";

const readBytes = promisify(read);

/** The lines of standard input, each read when it is asked for, so that nothing waits for input when the command ends. */
export class InputLines {
  readonly #decoder = new TextDecoder();
  readonly #buffer = new Uint8Array(2 ** 16);
  #held = "";
  #isOver = false;

  /** The next line; null where there is none any more. Rejects with the system's error where the input cannot be read. */
  async next(): Promise<string | null> {
    for (let end = this.#held.indexOf("\n"); !this.#isOver; end = this.#held.indexOf("\n")) {
      if (end >= 0) {
        const line = this.#held.slice(0, end).replace(/\r$/, "");
        this.#held = this.#held.slice(end + 1);
        return line;
      }
      const { bytesRead } = await readBytes(0, this.#buffer, 0, this.#buffer.byteLength, null);
      this.#isOver = bytesRead === 0;
      this.#held += this.#decoder.decode(this.#buffer.subarray(0, bytesRead), { stream: !this.#isOver });
    }
    const [line, ...rest] = this.#held.split("\n");
    this.#held = rest.join("\n");
    return line === undefined || (line === "" && rest.length === 0) ? null : line;
  }
}
