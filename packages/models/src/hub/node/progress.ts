import type { HubProgress } from "./environment.js";

/** Between two calls of whoever is told. */
const everyMs = 200;
/** The speed is that of so long. */
const windowMs = 10_000;

/** Counts what comes and tells how long the rest takes. */
export class ProgressMeter {
  #doneBytes = 0;
  #toldAt = Number.NEGATIVE_INFINITY;
  /** Bytes received by some moments of the window, the oldest first. */
  #samples: { readonly at: number; readonly bytes: number }[] = [];
  #receivedBytes = 0;

  constructor(
    readonly id: string,
    readonly totalBytes: number,
    readonly fileCount: number,
    readonly onProgress: ((progress: HubProgress) => void) | undefined,
  ) {}

  /** Bytes that were there already; negative for some that are thrown away. */
  found(count: number): void {
    this.#doneBytes += count;
    this.#tell();
  }

  received(count: number): void {
    this.#doneBytes += count;
    this.#receivedBytes += count;
    this.#tell();
  }

  #tell(): void {
    const at = performance.now();
    const isEnd = this.#doneBytes >= this.totalBytes;
    if (!this.onProgress || (at - this.#toldAt < everyMs && !isEnd)) return;
    this.#toldAt = at;
    this.#samples.push({ at, bytes: this.#receivedBytes });
    while (this.#samples.length > 2 && at - (this.#samples[0]?.at ?? at) > windowMs) this.#samples.shift();
    const [first] = this.#samples;
    const ms = first ? at - first.at : 0;
    const bytesPerSecond = first && ms > 0 ? (1000 * (this.#receivedBytes - first.bytes)) / ms : 0;
    const left = this.totalBytes - this.#doneBytes;
    this.onProgress({
      id: this.id,
      doneBytes: this.#doneBytes,
      totalBytes: this.totalBytes,
      bytesPerSecond,
      secondsLeft: isEnd ? 0 : bytesPerSecond > 0 ? left / bytesPerSecond : null,
      fileCount: this.fileCount,
    });
  }
}
