import { CheckpointError } from "../tensor/errors.js";
import type { ByteSource } from "./source.js";

/** Bytes that are read at a time. */
const stepBytes = 1 << 20;

const decoder = new TextDecoder();

/**
 * Reads a header field after field, little endian, through a window that moves over the source: of a long one only a part lies in memory. What
 * ends beyond the source, or beyond `limit` bytes of it, is a CheckpointError that names the field (`what`).
 */
export class Window {
  #bytes: Uint8Array = new Uint8Array(0);
  #view: DataView = new DataView(new ArrayBuffer(0));
  /** Where the window begins in the source, and how far into it has been read. */
  #start = 0;
  #at = 0;
  /** The field that is being read, for errors. */
  what = "the header";

  constructor(
    readonly source: ByteSource,
    readonly limit: number,
  ) {}

  /** Bytes from the source's beginning. */
  get position(): number {
    return this.#start + this.#at;
  }

  /** Bytes of the source that follow. */
  get left(): number {
    return this.source.byteLength - this.position;
  }

  /** Throws unless `count` things of at least `bytes` each can follow. A product above 2^53 is inexact, and far above every length. */
  expect(count: number, bytes: number): void {
    if (count * bytes > this.left)
      throw this.wrong(`${this.what} needs ${count * bytes} bytes or more, and ${this.left} follow.`, "Fetch the file again.");
    if (this.position + count * bytes > this.limit)
      throw this.wrong(
        `${this.what} ends beyond ${this.limit} bytes, where no header does.`,
        "Make the file with llama.cpp or the gguf package.",
      );
  }

  wrong(fact: string, remedy: string): CheckpointError {
    return new CheckpointError(`${this.source.name}: ${fact} ${remedy}`, this.source.name);
  }

  holds(length: number): boolean {
    return this.#bytes.byteLength - this.#at >= length;
  }

  /** Moves on so that the next `length` bytes are at hand. */
  async fill(length: number): Promise<void> {
    if (this.holds(length)) return;
    this.expect(1, length);
    const from = this.position;
    const wanted = Math.min(this.left, Math.max(length, stepBytes));
    const bytes = await this.source.read(from, wanted);
    if (bytes.byteLength !== wanted)
      throw this.wrong(`the file ended inside ${this.what}.`, "It changed while it was read: fetch it again.");
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#start = from;
    this.#at = 0;
  }

  /** The next `width` bytes by a view's own reader, of bytes that are at hand. */
  take<T>(width: number, read: (view: DataView, at: number) => T): T {
    const value = read(this.#view, this.#at);
    this.#at += width;
    return value;
  }

  async u32(): Promise<number> {
    await this.fill(4);
    return this.take(4, (view, at) => view.getUint32(at, true));
  }

  /** A count of 64 bits. Above 2^53 it may be inexact, but then it is above every length too. */
  async count(): Promise<number> {
    await this.fill(8);
    return this.take(8, countAt);
  }

  /** A text: its length in 64 bits, then UTF-8. Bytes that are none become U+FFFD, as some vocabularies hold them. */
  async text(): Promise<string> {
    const length = await this.count();
    this.expect(1, length);
    await this.fill(length);
    return this.#textOf(length);
  }

  /** `text` where it lies in the window as a whole, else null and nothing is read. */
  textAtHand(): string | null {
    if (!this.holds(8)) return null;
    const length = countAt(this.#view, this.#at);
    if (!this.holds(8 + length)) return null;
    this.#at += 8;
    return this.#textOf(length);
  }

  #textOf(length: number): string {
    const bytes = this.#bytes.subarray(this.#at, this.#at + length);
    this.#at += length;
    // A decoder's call costs more than a short text.
    if (length < 24 && bytes.every((byte) => byte < 128)) return String.fromCharCode(...bytes);
    return decoder.decode(bytes);
  }

  /** The next bytes, in memory of their own. */
  async bytes(length: number): Promise<Uint8Array> {
    this.expect(1, length);
    await this.fill(length);
    // Not slice(): that of Node's Buffer gives no memory of its own.
    const bytes = new Uint8Array(length);
    bytes.set(this.#bytes.subarray(this.#at, this.#at + length));
    this.#at += length;
    return bytes;
  }
}

function countAt(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
}
