import type { HubProgress } from "@lowrank/models";
import type { Output } from "./output.js";
import { bytes, duration } from "./terminal/format.js";

/** A line at least this often, where lines are printed. */
const silenceMs = 30_000;

/** Shows a transfer from the hub: a bar with the time left on a terminal, a line now and then elsewhere. */
export class FetchProgress {
  readonly #start = performance.now();
  #last: HubProgress | null = null;
  #saidAt = Number.NEGATIVE_INFINITY;

  constructor(readonly output: Output) {}

  step(progress: HubProgress): void {
    this.#last = progress;
    const { id, doneBytes, totalBytes, bytesPerSecond, secondsLeft, fileCount } = progress;
    const share = totalBytes === 0 ? 1 : doneBytes / totalBytes;
    const counted = `${bytes(doneBytes)} of ${bytes(totalBytes)}`;
    const rate = bytesPerSecond > 0 ? `${bytes(Math.round(bytesPerSecond))}/s` : "";
    const left = secondsLeft === null || doneBytes >= totalBytes ? "" : `${duration(Math.max(1, secondsLeft))} left`;
    if (this.output.isTerminal) {
      const facts = [counted, rate, left].filter((text) => text !== "").join("  ");
      const cells = Math.min(20, this.output.columns - id.length - facts.length - 4);
      const filled = Math.round(share * Math.max(0, cells));
      const bar = cells < 6 ? "" : `${"█".repeat(filled)}${"░".repeat(cells - filled)}  `;
      this.output.draw(`${id} ${bar}${facts}`);
      return;
    }
    const isFirst = this.#saidAt === Number.NEGATIVE_INFINITY;
    if (!isFirst && performance.now() - this.#saidAt < silenceMs) return;
    this.#saidAt = performance.now();
    const files = `${fileCount} ${fileCount === 1 ? "file" : "files"}`;
    this.output.note(
      isFirst
        ? `fetching ${id} from the hub: ${files}, ${counted} here …`
        : `${id}: ${[counted, `${Math.floor(100 * share)} %`, rate, left].filter((text) => text !== "").join(", ")}`,
    );
  }

  /** Says what came, if anything did. */
  finish(): void {
    if (!this.#last) return;
    this.output.draw("");
    this.output.note(
      `${this.#last.id}: ${bytes(this.#last.totalBytes)} in the cache, after ${duration((performance.now() - this.#start) / 1000)}`,
    );
  }
}
