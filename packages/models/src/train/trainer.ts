import { optim } from "@lowrank/autograd";
import { CheckpointError, eventLoopTurn, type FileSystem, type Generator, NotFiniteError, type Tensor } from "@lowrank/tensor";
import { type Batch, BatchSequence } from "../data/batches.js";
import { ignoredLabel } from "../data/encode.js";
import { evaluationSequence } from "../data/evaluation.js";
import type { Examples } from "../data/examples.js";
import { StepClock, type StepTime } from "./clock.js";
import { HeldOutLossError, TrainingError } from "./error.js";
import type { TrainingRules } from "./rules.js";
import { type RunState, restoreState, saveState } from "./state.js";
import { evaluator, type StepOutcome, type TrainableModel, trainingStep } from "./step.js";

/** One line of metrics.jsonl. */
export interface StepMetrics {
  /** Steps done, from 1. */
  readonly step: number;
  readonly loss: number;
  readonly learningRate: number;
  /** Global L2 norm before clipping. */
  readonly gradNorm: number;
  /** The step's own time: from the end of the one before to its loss, evaluation and checkpoints left out. */
  readonly stepMs: number;
  /** True where kernels were planned for the step, the first of its shape: its time says little about the others. */
  readonly isWarmUp: boolean;
  /** Tokens without padding per second of training so far, steps that planned left out. */
  readonly tokensPerSecond: number;
  /** Bytes on the device now. */
  readonly bytes: number;
}

/** Where a run keeps its state, and how it writes what it is for. */
export interface RunFolder {
  readonly files: FileSystem;
  readonly path: string;
  /** Writes the adapter or the weights; called after the state is safe. */
  save(): Promise<void>;
  /** Steps between two checkpoints; one is written at the end in any case. */
  readonly every: number;
  /** Compared by the caller when it resumes. */
  readonly settings: RunState["settings"];
  /** Likewise: digests of what the run reads, and what started it. */
  readonly hashes?: RunState["hashes"];
  readonly command?: RunState["command"];
  /** Told what has changed in the state since it was written; when absent, such a state is not resumed from. */
  readonly onChanged?: (what: string) => void | Promise<void>;
}

/** Everything that a run is. The trainer knows nothing of adapters: it moves `parameters`, whatever they are. */
export interface TrainOptions {
  readonly model: TrainableModel;
  /** What is trained, by name. */
  readonly parameters: ReadonlyMap<string, Tensor>;
  /** What the way of training asks beyond that. */
  readonly rules?: TrainingRules;
  readonly examples: Examples;
  /** Longest row in tokens; a row is never padded beyond. */
  readonly lengthLimit: number;
  readonly steps: number;
  readonly batchSize: number;
  /** Batches whose gradients make one step; 1 when absent. */
  readonly accumulate?: number;
  readonly seed: number;
  /** Step (from 0) to learning rate. */
  readonly schedule: optim.Schedule;
  readonly weightDecay?: number;
  /** 1 when absent; 0 never clips. */
  readonly maxGradNorm?: number;
  /** Their state is part of the checkpoint: dropout's. */
  readonly generators?: readonly Generator[];
  /** Held-out rows: the loss is measured before the first step, every `every` steps (0: never), and at the end. */
  readonly evaluation?: { readonly examples: Examples; readonly every: number; readonly batchSize?: number };
  readonly folder?: RunFolder;
  /** Goes on from the folder's state. */
  readonly resume?: boolean;
  /** Ends the run after the step in progress, or the batch of an evaluation, with a checkpoint. */
  readonly signal?: AbortSignal;
  onStep?(metrics: StepMetrics): void | Promise<void>;
  onEvaluation?(step: number, loss: number): void | Promise<void>;
  onCheckpoint?(step: number): void | Promise<void>;
}

/** How a run went. */
export interface TrainResult {
  /** Steps done, of earlier parts of a resumed run too. */
  readonly steps: number;
  /** Steps done by this call. */
  readonly newSteps: number;
  /** False when the signal ended it. */
  readonly isFinished: boolean;
  /** Mean of the last 20 steps' losses. */
  readonly trainLoss: number;
  readonly evalLossBefore: number | null;
  readonly evalLossAfter: number | null;
  /** Tokens without padding per second of training, steps that planned left out; 0 when no step was left to do. */
  readonly tokensPerSecond: number;
  /** This call's training, planning included, evaluation and checkpoints left out. */
  readonly trainSeconds: number;
  readonly peakBytes: number;
}

const recentCount = 20;
/**
 * Steps enqueued before the first one's loss is read: enough to keep a GPU busy, few enough to stop soon after a NaN. Where a step takes long,
 * nothing is gained by enqueuing ahead, and each loss is told as soon as it is there.
 */
function inFlightLimit(stepMs: number): number {
  return stepMs < 200 ? 3 : stepMs < 1000 ? 1 : 0;
}

/**
 * Trains to the last step and writes checkpoints on the way.
 * Rejects with TrainingError when a loss, a gradient norm or a parameter is not finite (the last checkpoint stays as it is) and for a step
 * without labels that count, and with CheckpointError when a checkpoint cannot be written or resumed from.
 */
export async function train(options: TrainOptions): Promise<TrainResult> {
  const { model, parameters, folder, evaluation, steps, accumulate = 1, schedule, signal, lengthLimit } = options;
  const { device } = model;
  const rules = options.rules ?? {};
  const shape = { layout: model.batchLayout ?? "padded", lengthLimit };
  const groups = [...parameters].map(([name, t]) => ({
    parameters: new Map([[name, t]]),
    learningRateFactor: rules.learningRateFactors?.get(name) ?? 1,
    weightDecay: rules.weightDecays?.get(name) ?? options.weightDecay ?? 0,
  }));
  const optimizer = optim.adamw(groups, { ...rules.adamw });
  const step = trainingStep({ model, parameters, rules, optimizer, maxGradNorm: options.maxGradNorm ?? 1 });
  const heldOut = evaluation && {
    ...evaluation,
    run: evaluator(model),
    batches: evaluationSequence(evaluation.examples, evaluation.batchSize ?? 16, shape),
  };
  const batches = new BatchSequence(options.examples, { batchSize: options.batchSize, seed: options.seed, ...shape });
  const stateTensors = new Map([
    ...[...parameters].map(([name, t]) => [`parameter.${name}`, t] as const),
    ...[...optimizer.state()].map(([name, t]) => [`optimizer.${name}`, t] as const),
    ...[...(rules.state?.() ?? [])].map(([name, t]) => [`method.${name}`, t] as const),
    ...(options.generators ?? []).map((generator, i) => [`random.${i}`, generator.key] as const),
  ]);

  const restored =
    options.resume && folder ? await restoreState(folder.files, folder.path, stateTensors, { onChanged: folder.onChanged }) : null;
  if (folder && restored && restored.step > steps)
    throw new CheckpointError(
      `${folder.path} holds a run at step ${restored.step}, which is beyond the last of ${steps}. Resume it with more steps, or train into another folder.`,
      folder.path,
    );
  if (restored) await rules.restored?.();
  let done = restored?.step ?? 0;
  let evalLossBefore = restored?.evalLossBefore ?? null;
  let evalLoss = restored?.evalLoss ?? null;
  const recentLosses = [...(restored?.recentLosses ?? [])];
  let checkpointAt = restored ? done : -1;
  /** Whether the signal came during an evaluation. */
  let isCut = false;
  /** Of the step that a resumed run begins at: it was cut, or there were no held-out rows then. */
  const isEvaluationOwed = evalLoss === null && done > 0 && done < steps && isEvaluationStep(done, evaluation?.every);

  const first = done;
  const clock = new StepClock();
  /** What plans were made for so far. */
  const plannedShapes = new Set<string>();
  let lastRate = 0;
  let trainMs = 0;
  let lapStart = performance.now();
  const pause = (): void => {
    trainMs += performance.now() - lapStart;
  };

  const evaluate = async (): Promise<void> => {
    if (!heldOut) return;
    try {
      evalLoss = (await heldOut.run.run(untilAborted(heldOut.batches, signal))).loss;
    } catch (error) {
      if (error instanceof HeldOutLossError) {
        // A run that resumes from here at a lower rate measures at its next evaluation; only the last one is repeated.
        if (done >= steps) evalLoss = null;
        // It is the parameters that are not finite, most often, and the checkpoint says which.
        if (done > 0) await checkpoint();
        throw notFinite(done, `the held-out loss is ${error.loss}`, lastRate, checkpointAt);
      }
      if (!signal?.aborted || error !== signal.reason) throw error;
      // A resumed run measures it again.
      evalLoss = null;
      isCut = true;
      return;
    } finally {
      model.train(true);
    }
    evalLossBefore ??= done === 0 ? evalLoss : null;
    await options.onEvaluation?.(done, evalLoss);
  };
  const checkpoint = async (): Promise<void> => {
    if (!folder || checkpointAt === done) return;
    const { settings, hashes = null, command = null } = folder;
    const state = { step: done, settings, hashes, command, evalLossBefore, evalLoss, recentLosses };
    try {
      await saveState(folder.files, folder.path, stateTensors, state);
      await folder.save();
    } catch (error) {
      if (!(error instanceof NotFiniteError)) throw error;
      throw notFinite(done, `its update left ${error.tensor} without a finite value at ${error.at}`, lastRate, checkpointAt);
    }
    checkpointAt = done;
    await options.onCheckpoint?.(done);
  };

  /** Losses on their way from the device, oldest first. */
  const inFlight: {
    readonly number: number;
    readonly rate: number;
    readonly outcome: Promise<StepOutcome & { readonly endMs: number }>;
    readonly time: Omit<StepTime, "endMs">;
  }[] = [];
  const settle = async (limit: number): Promise<void> => {
    while (inFlight.length > limit) {
      const { number, rate, outcome, time } = inFlight.shift() as (typeof inFlight)[number]; // longer than the limit, so not empty
      const { loss, gradNorm, endMs } = await outcome;
      if (!Number.isFinite(loss)) throw notFinite(number, `the loss is ${loss}`, rate, checkpointAt);
      if (!Number.isFinite(gradNorm))
        throw notFinite(number, `the gradients' norm is ${gradNorm} (the loss is ${loss.toPrecision(4)})`, rate, checkpointAt);
      recentLosses.push(loss);
      if (recentLosses.length > recentCount) recentLosses.shift();
      const stepMs = clock.add({ ...time, endMs });
      await options.onStep?.({
        step: number,
        loss,
        learningRate: rate,
        gradNorm,
        stepMs: Number(stepMs.toPrecision(6)),
        isWarmUp: time.isWarmUp,
        tokensPerSecond: clock.tokensPerSecond,
        bytes: device.counters.bytesInUse,
      });
    }
  };

  try {
    if (done === 0 || isEvaluationOwed) await evaluate();
    model.train(true);
    lapStart = performance.now();
    while (done < steps && !signal?.aborted) {
      const parts: Batch[] = Array.from({ length: accumulate }, (_, i) => batches.batch(done * accumulate + i));
      const rate = schedule(done);
      lastRate = rate;
      if (parts.every((part) => part.learnedTokenCount === 0))
        throw new TrainingError(`Step ${done + 1}: all of its labels are ${ignoredLabel}. Remove rows without loss tokens.`, done + 1);
      const shapes = parts.map((part, i) => planKey(part, i, parts.length));
      const isWarmUp = shapes.some((key) => !plannedShapes.has(key));
      for (const key of shapes) plannedShapes.add(key);
      // Planning blocks this thread: losses that are there are told before, and the step's own right after.
      if (isWarmUp) await settle(0);
      done++;
      const time = { startMs: performance.now(), isWarmUp, tokenCount: parts.reduce((sum, part) => sum + part.tokenCount, 0) };
      const outcome = step.run(parts, rate).then((figures) => ({ ...figures, endMs: performance.now() }));
      outcome.catch(() => {}); // it is awaited below; an early rejection must not end the process
      inFlight.push({ number: done, rate, outcome, time });
      await step.enqueued();
      const isCheckpoint = folder !== undefined && folder.every > 0 && done % folder.every === 0;
      const isEvaluation = isEvaluationStep(done, evaluation?.every);
      await settle(isWarmUp || isCheckpoint || isEvaluation || done === steps ? 0 : inFlightLimit(clock.steadyMs));
      await rules.afterStep?.(done);
      if (isCheckpoint || isEvaluation) {
        pause();
        if (isEvaluation && done < steps) await evaluate();
        if (isCheckpoint && done < steps) await checkpoint();
        lapStart = performance.now();
      }
      // Lets signals and timers in: a backend that computes on this thread would never.
      await eventLoopTurn();
    }
    await settle(0);
    pause();
    if (done >= steps && (!restored || restored.step < steps || evalLoss === null)) await evaluate();
    await checkpoint();
    // A run killed between the state and the adapter finds its steps done; the adapter is written again all the same.
    if (folder && restored && restored.step === done) await folder.save();
  } finally {
    step.dispose();
    heldOut?.run.dispose();
    model.train(false);
  }
  return {
    steps: done,
    newSteps: done - first,
    isFinished: done >= steps && !isCut,
    trainLoss: recentLosses.reduce((sum, loss) => sum + loss, 0) / Math.max(recentLosses.length, 1),
    evalLossBefore,
    evalLossAfter: done >= steps ? evalLoss : null,
    tokensPerSecond: clock.tokensPerSecond,
    trainSeconds: trainMs / 1000,
    peakBytes: device.counters.peakBytes,
  };
}

/** Whether the held-out loss is measured after a step; `every` 0: never. */
function isEvaluationStep(step: number, every = 0): boolean {
  return every > 0 && step % every === 0;
}

/** Throws the signal's reason before the next of some batches once it is aborted. */
function* untilAborted(batches: Iterable<Batch>, signal: AbortSignal | undefined): Iterable<Batch> {
  for (const batch of batches) {
    signal?.throwIfAborted();
    yield batch;
  }
}

/** What of a batch decides which plan its step runs: its shape, and whether it is the last of several. */
function planKey({ rowCount, length, rowLimit, positions }: Batch, index: number, count: number): string {
  return [rowCount, length, ...(positions ? [rowLimit] : []), index === count - 1 ? "last" : "accumulated"].join();
}

function notFinite(step: number, what: string, rate: number, checkpointAt: number): TrainingError {
  const cause =
    step <= 1
      ? "The weights themselves or the learning rate are the likely cause: check the model with `lowrank eval`, then lower --lr"
      : `A learning rate of ${rate.toPrecision(3)} is the likely cause: lower --lr, or add --warmup`;
  const kept = checkpointAt > 0 ? `The checkpoint of step ${checkpointAt} is kept.` : "No checkpoint was written.";
  const lower = Number.isFinite(rate) && rate > 0 ? Number((rate / 10).toPrecision(1)) : 1e-4;
  return new TrainingError(`Step ${step}: ${what}. ${cause}. ${kept}`, step, lower, checkpointAt > 0 ? checkpointAt : null);
}
