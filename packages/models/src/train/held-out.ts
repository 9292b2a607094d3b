import type { Batch } from "../data/batches.js";
import { evaluationSequence } from "../data/evaluation.js";
import type { Checkpoints, Progress } from "./checkpoints.js";
import { divergence, HeldOutLossError } from "./error.js";
import { type Evaluator, evaluator } from "./evaluator.js";
import type { TrainOptions } from "./run.js";

/** The held-out rows of a run, whose loss is measured on its way; without rows nothing is measured. */
export class HeldOutRows {
  readonly #options: TrainOptions;
  readonly #checkpoints: Checkpoints;
  readonly #rows: { readonly evaluator: Evaluator; readonly batches: Iterable<Batch> } | null;
  /** Whether the signal came during an evaluation, which a resumed run repeats. */
  isCut = false;

  constructor(options: TrainOptions, checkpoints: Checkpoints) {
    const { model, evaluation, lengthLimit } = options;
    this.#options = options;
    this.#checkpoints = checkpoints;
    const shape = { layout: model.batchLayout ?? "padded", lengthLimit };
    this.#rows = evaluation
      ? { evaluator: evaluator(model), batches: evaluationSequence(evaluation.examples, evaluation.batchSize ?? 16, shape) }
      : null;
  }

  /** Whether the loss is measured after a step, the last one aside. */
  isDue(step: number): boolean {
    const every = this.#options.evaluation?.every ?? 0;
    return every > 0 && step % every === 0;
  }

  /** Whether it is measured before the first step of this call: nothing is trained yet, or a signal cut it, or there were no rows then. */
  isOwedAtFirst({ step, evalLoss }: Progress): boolean {
    return step === 0 || (evalLoss === null && step < this.#options.steps && this.isDue(step));
  }

  /** Measures the loss, unless the signal comes meanwhile. `rate`: of the step before. Rejects with TrainingError when it is not finite. */
  async measure(progress: Progress, rate: number): Promise<void> {
    if (!this.#rows) return;
    const { model, signal, steps, onEvaluation } = this.#options;
    const { step } = progress;
    let loss: number;
    try {
      loss = (await this.#rows.evaluator.run(untilAborted(this.#rows.batches, signal))).loss;
    } catch (error) {
      if (error instanceof HeldOutLossError) {
        // A run that resumes from here at a lower rate measures at its next evaluation; only the last one is repeated.
        if (step >= steps) progress.evalLoss = null;
        // It is the parameters that are not finite, most often, and the checkpoint says which.
        if (step > 0) await this.#checkpoints.write(progress, rate);
        throw divergence(step, `the held-out loss is ${error.loss}`, rate, this.#checkpoints.step);
      }
      if (!signal?.aborted || error !== signal.reason) throw error;
      progress.evalLoss = null;
      this.isCut = true;
      return;
    } finally {
      model.train(true);
    }
    progress.evalLoss = loss;
    if (step === 0) progress.evalLossBefore ??= loss;
    await onEvaluation?.(step, loss);
  }

  dispose(): void {
    this.#rows?.evaluator.dispose();
  }
}

/** Throws the signal's reason before the next of some batches once it is aborted. */
function* untilAborted(batches: Iterable<Batch>, signal: AbortSignal | undefined): Iterable<Batch> {
  for (const batch of batches) {
    signal?.throwIfAborted();
    yield batch;
  }
}
