import type { Checkpoints, Progress } from "./checkpoints.js";
import { StepClock, type StepTime } from "./clock.js";
import { divergence } from "./error.js";
import type { TrainOptions } from "./run.js";
import type { StepOutcome } from "./step.js";

/** Losses of which the mean is a run's training loss at the end. */
const recentCount = 20;

/** A step that is enqueued. */
interface EnqueuedStep extends Omit<StepTime, "endMs"> {
  /** From 1. */
  readonly number: number;
  readonly rate: number;
  readonly outcome: Promise<StepOutcome>;
}

interface EndedStep extends StepOutcome {
  /** When its loss was known. */
  readonly endMs: number;
}

/** Steps whose losses are on their way from the device: each is checked, kept for the mean, and told to `onStep`, in order. */
export class StepsInFlight {
  readonly clock: StepClock = new StepClock();
  readonly #options: TrainOptions;
  readonly #progress: Progress;
  readonly #checkpoints: Checkpoints;
  readonly #steps: { readonly step: EnqueuedStep; readonly ended: Promise<EndedStep> }[] = [];

  constructor(options: TrainOptions, progress: Progress, checkpoints: Checkpoints) {
    this.#options = options;
    this.#progress = progress;
    this.#checkpoints = checkpoints;
  }

  add(step: EnqueuedStep): void {
    const ended = step.outcome.then((outcome) => ({ ...outcome, endMs: performance.now() }));
    ended.catch(() => {}); // it is awaited in `settle`; an early rejection must not end the process
    this.#steps.push({ step, ended });
  }

  /**
   * Steps enqueued before the first one's loss is read: enough to keep a GPU busy, few enough to stop soon after a NaN. Where a step takes
   * long, nothing is gained by enqueuing ahead, and each loss is told as soon as it is there.
   */
  get limit(): number {
    const ms = this.clock.steadyMs;
    return ms < 200 ? 3 : ms < 1000 ? 1 : 0;
  }

  /** Waits until at most `limit` steps are under way. Rejects with TrainingError for the first whose loss or gradients are not finite. */
  async settle(limit: number): Promise<void> {
    while (this.#steps.length > limit) {
      const [oldest] = this.#steps.splice(0, 1);
      if (oldest) await this.#tell(oldest.step, await oldest.ended);
    }
  }

  async #tell(step: EnqueuedStep, { loss, gradNorm, endMs }: EndedStep): Promise<void> {
    const { number, rate, isWarmUp } = step;
    const checkpointAt = this.#checkpoints.step;
    if (!Number.isFinite(loss)) throw divergence(number, `the loss is ${loss}`, rate, checkpointAt);
    if (!Number.isFinite(gradNorm))
      throw divergence(number, `the gradients' norm is ${gradNorm} (the loss is ${loss.toPrecision(4)})`, rate, checkpointAt);
    const { recentLosses } = this.#progress;
    recentLosses.push(loss);
    if (recentLosses.length > recentCount) recentLosses.shift();
    const stepMs = Number(this.clock.add({ ...step, endMs }).toPrecision(6));
    const { tokensPerSecond } = this.clock;
    const bytes = this.#options.model.device.counters.bytesInUse;
    await this.#options.onStep?.({ step: number, loss, learningRate: rate, gradNorm, stepMs, isWarmUp, tokensPerSecond, bytes });
  }
}
