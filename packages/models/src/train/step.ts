import type { optim } from "@lowrank/autograd";
import { type Device, type Tensor, tensor } from "@lowrank/tensor";
import type { Batch, BatchLayout } from "../data/batches.js";
import { ignoredLabel } from "../data/example.js";
import type { PackedRows } from "../packed-rows.js";
import { checkLabels, tensorsOf, upload } from "./device-batch.js";
import { type StepFigures, stepPlans } from "./plans.js";
import type { TrainingRules } from "./rules.js";

/** What the trainer needs of a model. */
export interface TrainableModel {
  readonly device: Device;
  /** How batches are laid out for it; padded when absent. */
  readonly batchLayout?: BatchLayout;
  /** Labels are below it, or -100; not looked at when absent. */
  readonly vocabSize?: number;
  /** Mean cross-entropy over the labels that are not -100; ids and labels i32 [batch, seq], shifted inside. */
  loss(ids: Tensor, labels: Tensor, options: { readonly packed: PackedRows | null }): Tensor;
  /** Dropout on or off. */
  train(isTraining?: boolean): unknown;
}

/** What a step needs besides the model. */
export interface StepOptions {
  readonly model: TrainableModel;
  /** What is trained, by name. */
  readonly parameters: ReadonlyMap<string, Tensor>;
  readonly rules?: TrainingRules;
  /** Updates the parameters with `assign`. */
  readonly optimizer: optim.Optimizer;
  /** Gradients are scaled down to this global norm; 0 leaves them as they are. */
  readonly maxGradNorm: number;
}

/** What one step says; resolves when the device has got there. */
export interface StepOutcome {
  /** Of the data, without what the rules add to it. */
  readonly loss: number;
  readonly gradNorm: number;
}

/** The compiled training step; `run` enqueues it and returns the promise of its figures. */
export interface TrainingStep {
  /**
   * The loss is the mean over the loss tokens of all batches together, however they are split; a batch without any takes no part.
   * Rejects with RangeError when none of the batches has any, and for a label that is neither a token nor -100.
   */
  run(batches: readonly Batch[], learningRate: number): Promise<StepOutcome>;
  /** Resolves when all batches of the steps so far are enqueued: what is assigned or read from then on comes after them. */
  enqueued(): Promise<void>;
  dispose(): void;
}

/** A step whose batches are all enqueued, and the tensors that end with it. */
interface Enqueued extends StepFigures {
  readonly passing: readonly Tensor[];
}

/** Compiles the training step at its first call; with several batches a step (gradient accumulation) they run one after another. */
export function trainingStep(options: StepOptions): TrainingStep {
  const { model } = options;
  const plans = stepPlans(options);

  /** Enqueues a step's batches, one after another as the device gets there. */
  const enqueue = async (batches: readonly Batch[], learningRate: number): Promise<Enqueued> => {
    const { device } = model;
    const rate = tensor(learningRate, { device });
    const passing: Tensor[] = [rate];
    const learned = batches.reduce((sum, batch) => sum + batch.learnedTokenCount, 0);
    let figures: StepFigures | null = null;
    for (const [i, rows] of batches.entries()) {
      if (i > 0) await device.ready();
      const batch = upload(rows, device);
      passing.push(...tensorsOf(batch));
      if (batches.length === 1) figures = plans.single(batch, rate);
      else {
        const share = tensor(rows.learnedTokenCount / learned, { device });
        passing.push(share);
        if (i < batches.length - 1) passing.push(plans.accumulate(batch, share));
        else figures = plans.finish(batch, share, rate);
      }
    }
    if (!figures)
      throw new RangeError(`A step needs labels other than ${ignoredLabel}, and its batches have none. Give it rows with loss tokens.`);
    return { ...figures, passing };
  };
  // Steps overlap and share the sums of gradients: all batches of one come before those of the next.
  let enqueued: Promise<unknown> = Promise.resolve();

  return {
    async run(all, learningRate) {
      if (model.vocabSize !== undefined) for (const batch of all) checkLabels(batch, model.vocabSize);
      // The mean over no token is NaN, even times a share of 0.
      const batches = all.filter(({ learnedTokenCount }) => learnedTokenCount > 0);
      const step = enqueued.then(() => enqueue(batches, learningRate));
      enqueued = step.catch(() => undefined); // who runs the step is told
      const { loss, norm, passing } = await step;
      const [lossValue, gradNorm] = await Promise.all([loss.item(), norm.item()]);
      for (const t of [...passing, loss, norm]) t.dispose();
      return { loss: lossValue, gradNorm };
    },
    async enqueued() {
      await enqueued;
    },
    dispose: () => plans.dispose(),
  };
}
