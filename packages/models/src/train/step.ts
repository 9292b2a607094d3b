import { grad, optim } from "@lowrank/autograd";
import { compile, type Device, type Tensor, tensor } from "@lowrank/tensor";
import type { Batch, BatchLayout } from "../data/batches.js";
import { ignoredLabel } from "../data/encode.js";
import { outsideVocabulary } from "../labels.js";
import type { PackedRows } from "../packed-rows.js";
import { HeldOutLossError, TrainingError } from "./error.js";
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
interface Enqueued {
  readonly loss: Tensor;
  readonly norm: Tensor;
  readonly passing: readonly Tensor[];
}

/** Throws RangeError for a label that is neither a token of the vocabulary nor -100, with its row and its position there. */
function checkLabels({ labels, positions, length }: Batch, vocabSize: number): void {
  for (let at = 0; at < labels.length; at++) {
    const label = labels[at] as number; // at < length
    if (label === ignoredLabel || (label >= 0 && label < vocabSize)) continue;
    // Packed rows begin where positions do.
    const place = positions?.[at] ?? at % length;
    const row = positions ? positions.subarray(0, at + 1).filter((position) => position === 0).length - 1 : Math.floor(at / length);
    throw outsideVocabulary(label, row, place, vocabSize);
  }
}

/** A batch on the device. */
type DeviceBatch = { readonly ids: Tensor; readonly labels: Tensor; readonly packed: PackedRows | null };

function upload({ ids, labels, positions, rowCount, length, rowLimit }: Batch, device: Device): DeviceBatch {
  const put = (values: Int32Array): Tensor => tensor(values, { device, dtype: "i32", shape: [rowCount, length] });
  return { ids: put(ids), labels: put(labels), packed: positions && { positions: put(positions), rowLimit } };
}

function tensorsOf({ ids, labels, packed }: DeviceBatch): Tensor[] {
  return packed ? [ids, labels, packed.positions] : [ids, labels];
}

/**
 * Loss, gradients, clipping and optimizer as one plan. With several batches a step (gradient accumulation) all but the last run a smaller
 * plan that adds their gradients, weighted by their share of the loss tokens, into accumulators.
 */
export function trainingStep({ model, parameters: named, rules = {}, optimizer, maxGradNorm }: StepOptions): TrainingStep {
  const { device } = model;
  const parameters = [...named.values()];
  const names = [...named.keys()];
  const byName = (grads: readonly Tensor[]): Map<string, Tensor> => new Map(names.map((name, i) => [name, grads[i] as Tensor])); // one gradient a parameter
  const scalar = (value: number): Tensor => tensor(value, { device });

  const lossOf = ({ ids, labels, packed }: DeviceBatch): Tensor => model.loss(ids, labels, { packed });
  const regularized = (loss: Tensor): Tensor => (rules.regularization ? loss.add(rules.regularization()) : loss);
  const update = (grads: readonly Tensor[], learningRate: Tensor): Tensor => {
    const norm = optim.globalNorm(grads);
    const clipped = byName(maxGradNorm > 0 ? optim.clipByGlobalNorm(grads, maxGradNorm, norm) : grads);
    // What a method makes of gradients is a matter of the optimizer's, whose sizes say nothing about the loss.
    const changed = rules.changeGradients?.(clipped) ?? clipped;
    rules.beforeUpdate?.();
    optimizer.update([...changed.values()], { learningRate });
    rules.afterUpdate?.(changed);
    return norm;
  };

  const single = compile((batch: DeviceBatch, learningRate: Tensor) => {
    const loss = lossOf(batch);
    return { loss, norm: update(grad(regularized(loss), parameters), learningRate) };
  });

  // Made at the first accumulated step: zeros of the parameters' shapes, and the loss so far.
  let accumulators: Tensor[] | null = null;
  let lossSoFar: Tensor | null = null;
  const accumulated = (): { sums: Tensor[]; total: Tensor } => {
    accumulators ??= parameters.map((p) => tensor(new Float32Array(p.size), { device, shape: p.shape }));
    lossSoFar ??= scalar(0);
    return { sums: accumulators, total: lossSoFar };
  };
  const add = compile((batch: DeviceBatch, share: Tensor) => {
    const { sums, total } = accumulated();
    const loss = lossOf(batch).mul(share);
    const grads = grad(loss, parameters);
    for (const [i, sum] of sums.entries()) sum.assign(sum.add(grads[i] as Tensor)); // one gradient a parameter
    total.assign(total.add(loss));
    return loss;
  });
  const finish = compile((batch: DeviceBatch, share: Tensor, learningRate: Tensor) => {
    const { sums, total } = accumulated();
    const last = lossOf(batch).mul(share);
    const grads = grad(regularized(last), parameters).map((g, i) => g.add(sums[i] as Tensor)); // one sum a parameter
    const loss = last.add(total);
    for (const sum of sums) sum.assign(sum.mul(0));
    total.assign(total.mul(0));
    return { loss, norm: update(grads, learningRate) };
  });

  /** Enqueues a step's batches, one after another as the device gets there. */
  const enqueue = async (batches: readonly Batch[], learningRate: number): Promise<Enqueued> => {
    const rate = scalar(learningRate);
    const passing: Tensor[] = [rate];
    const learned = batches.reduce((sum, batch) => sum + batch.learnedTokenCount, 0);
    let outcome: { loss: Tensor; norm: Tensor } | null = null;
    if (batches.length > 1) accumulated();
    for (const [i, rows] of batches.entries()) {
      if (i > 0) await device.ready();
      const batch = upload(rows, device);
      passing.push(...tensorsOf(batch));
      if (batches.length === 1) outcome = single(batch, rate);
      else {
        const share = scalar(rows.learnedTokenCount / learned);
        passing.push(share);
        if (i < batches.length - 1) passing.push(add(batch, share));
        else outcome = finish(batch, share, rate);
      }
    }
    if (!outcome)
      throw new RangeError(`A step needs labels other than ${ignoredLabel}, and its batches have none. Give it rows with loss tokens.`);
    return { ...outcome, passing };
  };
  // Steps overlap and share the accumulators: all batches of one come before those of the next.
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
    dispose() {
      for (const plan of [single, add, finish]) plan.dispose();
      for (const t of [...(accumulators ?? []), ...(lossSoFar ? [lossSoFar] : [])]) t.dispose();
    },
  };
}

/** Enqueues the loss over held-out batches and waits for it; made once, so that its plans are made once. */
export interface Evaluator {
  run(batches: Iterable<Batch>): Promise<{ readonly loss: number; readonly tokenCount: number }>;
  dispose(): void;
}

/** Which rows a batch holds, for a message. */
function rowsOf({ lines }: Batch, number: number): string {
  if (!lines || lines.length === 0) return `batch ${number}`;
  const shown = lines.slice(0, 4).join(", ");
  return `batch ${number} (line${lines.length > 1 ? "s" : ""} ${shown}${lines.length > 4 ? ` and ${lines.length - 4} more` : ""})`;
}

/**
 * The mean loss over the loss tokens of many batches, with dropout off. `run` rejects with RangeError for a label that is neither a token
 * nor -100, and with TrainingError for the first batch whose loss is not finite and where no batch has loss tokens.
 */
export function evaluator(model: TrainableModel): Evaluator {
  const forward = compile(({ ids, labels, packed }: DeviceBatch) => model.loss(ids, labels, { packed }));
  return {
    async run(batches) {
      model.train(false);
      let sum = 0;
      let tokenCount = 0;
      let number = 0;
      for (const batch of batches) {
        number++;
        if (model.vocabSize !== undefined) checkLabels(batch, model.vocabSize);
        if (batch.learnedTokenCount === 0) continue;
        const uploaded = upload(batch, model.device);
        const loss = forward(uploaded);
        const value = await loss.item();
        for (const t of [...tensorsOf(uploaded), loss]) t.dispose();
        if (!Number.isFinite(value))
          throw new HeldOutLossError(
            `The loss of ${rowsOf(batch, number)} is ${value}: activations overflow, as weights of the model or the adapter are too large. Evaluate an earlier checkpoint, or train again with a lower learning rate.`,
            value,
          );
        sum += value * batch.learnedTokenCount;
        tokenCount += batch.learnedTokenCount;
      }
      if (tokenCount === 0)
        throw new TrainingError("None of the rows to evaluate has loss tokens. Give rows with completions, or cut them at more tokens.", 0);
      return { loss: sum / tokenCount, tokenCount };
    },
    dispose: () => forward.dispose(),
  };
}
