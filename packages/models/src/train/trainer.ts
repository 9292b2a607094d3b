import { optim } from "@lowrank/autograd";
import { eventLoopTurn } from "@lowrank/tensor";
import { type Batch, BatchSequence } from "../data/batches.js";
import { ignoredLabel } from "../data/example.js";
import { Checkpoints } from "./checkpoints.js";
import { Stopwatch } from "./clock.js";
import { TrainingError } from "./error.js";
import { HeldOutRows } from "./held-out.js";
import { StepsInFlight } from "./in-flight.js";
import { PlannedShapes } from "./planned-shapes.js";
import type { TrainOptions, TrainResult } from "./run.js";
import { trainingStep } from "./step.js";

/**
 * Trains to the last step and writes checkpoints on the way.
 * Rejects with TrainingError when a loss, a gradient norm or a parameter is not finite (the last checkpoint stays as it is) and for a step
 * without labels that count, and with CheckpointError when a checkpoint cannot be written or resumed from.
 */
export async function train(options: TrainOptions): Promise<TrainResult> {
  const { model, parameters, rules = {}, steps, schedule, maxGradNorm = 1, signal } = options;
  const optimizer = optimizerOf(options);
  const trainStep = trainingStep({ model, parameters, rules, optimizer, maxGradNorm });
  const batches = batchesOf(options);
  const checkpoints = new Checkpoints(options, optimizer);
  const progress = await checkpoints.begin();
  const heldOut = new HeldOutRows(options, checkpoints);
  const inFlight = new StepsInFlight(options, progress, checkpoints);
  const planned = new PlannedShapes();
  const watch = new Stopwatch();
  const first = progress.step;
  /** Of the latest step. */
  let rate = 0;

  try {
    if (heldOut.isOwedAtFirst(progress)) await heldOut.measure(progress, rate);
    model.train(true);
    watch.start();
    while (progress.step < steps && !signal?.aborted) {
      const parts = batchesOfStep(batches, progress.step, options.accumulate);
      rate = schedule(progress.step);
      const isWarmUp = planned.add(parts);
      // Planning blocks this thread: losses that are there are told before, and the step's own right after.
      if (isWarmUp) await inFlight.settle(0);
      const step = ++progress.step;
      const tokenCount = parts.reduce((sum, part) => sum + part.tokenCount, 0);
      inFlight.add({ number: step, rate, startMs: performance.now(), isWarmUp, tokenCount, outcome: trainStep.run(parts, rate) });
      await trainStep.enqueued();

      const isLast = step === steps;
      const isEvaluated = heldOut.isDue(step);
      const isSaved = checkpoints.isDue(step);
      await inFlight.settle(isWarmUp || isSaved || isEvaluated || isLast ? 0 : inFlight.limit);
      await rules.afterStep?.(step);
      if ((isEvaluated || isSaved) && !isLast) {
        watch.stop();
        if (isEvaluated) await heldOut.measure(progress, rate);
        if (isSaved) await checkpoints.write(progress, rate);
        watch.start();
      }
      // Lets signals and timers in: a backend that computes on this thread would never.
      await eventLoopTurn();
    }
    await inFlight.settle(0);
    watch.stop();
    if (progress.step >= steps && (progress.step > first || progress.evalLoss === null)) await heldOut.measure(progress, rate);
    await checkpoints.finish(progress, rate);
  } finally {
    trainStep.dispose();
    heldOut.dispose();
    model.train(false);
  }

  const { step, evalLossBefore, evalLoss, recentLosses } = progress;
  return {
    steps: step,
    newSteps: step - first,
    isFinished: step >= steps && !heldOut.isCut,
    trainLoss: recentLosses.reduce((sum, loss) => sum + loss, 0) / Math.max(recentLosses.length, 1),
    evalLossBefore,
    evalLossAfter: step >= steps ? evalLoss : null,
    tokensPerSecond: inFlight.clock.tokensPerSecond,
    trainSeconds: watch.ms / 1000,
    peakBytes: model.device.counters.peakBytes,
  };
}

/** AdamW over the parameters, each with what the rules say of its rate and its decay. */
function optimizerOf({ parameters, rules = {}, weightDecay = 0 }: TrainOptions): optim.Optimizer {
  const groups = [...parameters].map(([name, t]) => ({
    parameters: new Map([[name, t]]),
    learningRateFactor: rules.learningRateFactors?.get(name) ?? 1,
    weightDecay: rules.weightDecays?.get(name) ?? weightDecay,
  }));
  return optim.adamw(groups, { ...rules.adamw });
}

function batchesOf({ model, examples, batchSize, seed, lengthLimit }: TrainOptions): BatchSequence {
  return new BatchSequence(examples, { batchSize, seed, layout: model.batchLayout ?? "padded", lengthLimit });
}

/** The batches that make a step, which counts from 0. Throws TrainingError when none of them has loss tokens. */
function batchesOfStep(batches: BatchSequence, step: number, count = 1): readonly Batch[] {
  const parts = Array.from({ length: count }, (_, i) => batches.batch(step * count + i));
  if (parts.every((part) => part.learnedTokenCount === 0))
    throw new TrainingError(`Step ${step + 1}: all of its labels are ${ignoredLabel}. Remove rows without loss tokens.`, step + 1);
  return parts;
}
