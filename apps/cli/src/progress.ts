import type { Output } from "./output.js";
import { duration, grouped } from "./terminal/format.js";

/** What a bar shows of one step. */
export interface ProgressStep {
  readonly step: number;
  readonly loss: number;
  readonly tokensPerSecond: number;
  readonly stepMs: number;
  /** True for a step that planned kernels: it says nothing about how long the others take. */
  readonly isWarmUp: boolean;
}

/** A line at least this often, where lines are printed. */
const silenceMs = 30_000;

/** Shows a training run: a bar on a terminal, about twenty plain lines elsewhere, more of them where steps are slow. */
export class Progress {
  readonly #start = performance.now();
  #lastLine = Number.NEGATIVE_INFINITY;
  /** Sums over steady steps, of which older ones fade: the machine's speed changes. */
  #steady = { ms: 0, count: 0 };

  constructor(
    readonly output: Output,
    readonly total: number,
    /** Steps done before this part of the run. */
    readonly done: number = 0,
  ) {}

  /** After a step. */
  step({ step, loss, tokensPerSecond, stepMs, isWarmUp }: ProgressStep): void {
    const { ms, count } = this.#steady;
    if (!isWarmUp) this.#steady = { ms: 0.97 * ms + stepMs, count: 0.97 * count + 1 };
    const facts = { loss: `loss ${loss.toFixed(4)}`, rate: this.#rate(tokensPerSecond), time: this.#time(step) };
    const counted = `${String(step).padStart(String(this.total).length)}/${this.total}`;
    if (this.output.isTerminal) {
      this.output.draw(barLine(counted, step / this.total, facts, this.output.columns - 1));
      return;
    }
    const isDue = performance.now() - this.#lastLine >= silenceMs || step % Math.max(1, Math.ceil(this.total / 20)) === 0;
    if (step !== this.done + 1 && step !== this.total && !isDue) return;
    this.#lastLine = performance.now();
    this.output.say(spaced([`step ${counted}`, facts.loss, facts.rate, facts.time]));
  }

  /** Tokens a second, once a step has been steady. */
  #rate(tokensPerSecond: number): string {
    return this.#steady.count === 0 ? "" : `${grouped(tokensPerSecond)} tokens/s`;
  }

  /**
   * How long it will take from here on as steady steps go, and at the end how long it took. Nothing where that is less than a second: a step to
   * come may have to be planned, which takes longer.
   */
  #time(step: number): string {
    if (step >= this.total) return `in ${duration((performance.now() - this.#start) / 1000)}`;
    const { ms, count } = this.#steady;
    if (count === 0) return "planning kernels";
    const seconds = ((ms / count) * (this.total - step)) / 1000;
    return seconds < 1 ? "" : `${duration(seconds)} left`;
  }
}

/** The texts that say something, side by side. */
function spaced(texts: readonly string[]): string {
  return texts.filter((text) => text !== "").join("  ");
}

/** A bar and what fits beside it into `width` columns; the rate goes first, then the bar, then the time. */
function barLine(counted: string, share: number, { loss, rate, time }: Record<"loss" | "rate" | "time", string>, width: number): string {
  const shortest = 8;
  for (const facts of [spaced([loss, rate, time]), spaced([loss, time])]) {
    const room = width - counted.length - facts.length - 3;
    if (room < shortest) continue;
    const cells = Math.min(30, room);
    const filled = Math.round(share * cells);
    return `${counted} ${"█".repeat(filled)}${"░".repeat(cells - filled)}  ${facts}`;
  }
  const plain = [spaced([counted, loss, time]), spaced([counted, loss]), counted];
  return plain.find((line) => line.length <= width) ?? counted.slice(0, width);
}
