import { digestOf } from "@lowrank/tensor";
import { type Example, ignoredLabel } from "./example.js";

/** Numbers that are digested at a time. */
const blockLength = 2 ** 14;

/** A digest of examples in their order: of their tokens, and of which of these are to be predicted. */
export class ExampleDigest {
  #before = "";
  #block = new Int32Array(blockLength);
  #used = 0;

  /** The next example. */
  add({ ids, labels }: Pick<Example, "ids" | "labels">): void {
    this.#put(ids.length);
    // A label is its token, or none.
    for (let i = 0; i < ids.length; i++) this.#put(2 * (ids[i] as number) + Number(labels[i] !== ignoredLabel)); // i < length
  }

  #put(value: number): void {
    this.#block[this.#used++] = value;
    if (this.#used < blockLength) return;
    this.#before = this.digest;
    this.#used = 0;
  }

  /** 32 hexadecimal digits for all examples so far. */
  get digest(): string {
    return digestOf(this.#before + digestOf(new Uint8Array(this.#block.buffer, 0, 4 * this.#used)));
  }
}

/** The digest of some examples. */
export function examplesDigest(examples: Iterable<Example>): string {
  const digest = new ExampleDigest();
  for (const example of examples) digest.add(example);
  return digest.digest;
}
