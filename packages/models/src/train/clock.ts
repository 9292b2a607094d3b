/** One step's time, and what it trained. */
export interface StepTime {
  /** When it was enqueued and when its loss was known, in milliseconds of one clock. */
  readonly startMs: number;
  readonly endMs: number;
  /** True where kernels were planned for the step: the first of its shape. */
  readonly isWarmUp: boolean;
  /** Tokens without padding. */
  readonly tokenCount: number;
}

/**
 * Adds up the time of steps that may be under way together. A step's own time begins where the one before ended. Rates come from steady
 * steps: those for which nothing was planned.
 */
export class StepClock {
  #lastEnd = Number.NEGATIVE_INFINITY;
  #steady = { count: 0, ms: 0, tokens: 0 };
  #all = { count: 0, ms: 0, tokens: 0 };

  /** Counts a step and returns its own time in milliseconds. */
  add({ startMs, endMs, isWarmUp, tokenCount }: StepTime): number {
    const ms = Math.max(0, endMs - Math.max(startMs, this.#lastEnd));
    this.#lastEnd = Math.max(endMs, this.#lastEnd);
    for (const sums of isWarmUp ? [this.#all] : [this.#all, this.#steady]) {
      sums.count++;
      sums.ms += ms;
      sums.tokens += tokenCount;
    }
    return ms;
  }

  /** Milliseconds a steady step takes, 0 before the first. */
  get steadyMs(): number {
    return this.#steady.ms / Math.max(1, this.#steady.count);
  }

  /** Tokens a second over steady steps; over all of them where none was steady; 0 before the first. */
  get tokensPerSecond(): number {
    const { ms, tokens } = this.#steady.ms > 0 ? this.#steady : this.#all;
    return ms > 0 ? Math.round((1000 * tokens) / ms) : 0;
  }
}

/** Adds up time between starts and stops. */
export class Stopwatch {
  /** Milliseconds so far, those since a start that no stop has followed left out. */
  ms = 0;
  #startedMs: number | null = null;

  start(): void {
    this.#startedMs = performance.now();
  }

  stop(): void {
    if (this.#startedMs !== null) this.ms += performance.now() - this.#startedMs;
    this.#startedMs = null;
  }
}
