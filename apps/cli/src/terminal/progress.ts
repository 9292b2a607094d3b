import type { Output } from "../output.js";
import { duration, grouped } from "./format.js";

/** What a bar shows of one step. */
export interface ProgressStep {
  readonly step: number;
  readonly loss: number;
  readonly tokensPerSecond: number;
}

/** Shows a training run: a bar on a terminal, about twenty plain lines elsewhere. */
export class Progress {
  readonly #start = performance.now();
  #smoothRate = 0;

  constructor(
    readonly output: Output,
    readonly total: number,
    /** Steps done before this part of the run. */
    readonly done: number = 0,
  ) {}

  /** After a step. */
  step({ step, loss, tokensPerSecond }: ProgressStep): void {
    this.#smoothRate = this.#smoothRate === 0 ? tokensPerSecond : 0.9 * this.#smoothRate + 0.1 * tokensPerSecond;
    const seconds = (performance.now() - this.#start) / 1000;
    const left = (seconds / Math.max(1, step - this.done)) * (this.total - step);
    const facts = `loss ${loss.toFixed(4)}  ${grouped(this.#smoothRate)} tokens/s  ${step < this.total ? `${duration(left)} left` : duration(seconds)}`;
    const count = `${String(step).padStart(String(this.total).length)}/${this.total}`;
    if (this.output.isTerminal) {
      const width = Math.max(8, Math.min(30, this.output.columns - count.length - facts.length - 5));
      const filled = Math.round((step / this.total) * width);
      this.output.draw(`${count} ${"█".repeat(filled)}${"░".repeat(width - filled)}  ${facts}`);
    } else if (step === this.done + 1 || step === this.total || step % Math.max(1, Math.ceil(this.total / 20)) === 0) {
      this.output.say(`step ${count}  ${facts}`);
    }
  }
}
