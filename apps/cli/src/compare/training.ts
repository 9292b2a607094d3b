import { join } from "node:path";
import { optim } from "@lowrank/autograd";
import { type Adapter, saveAdapter } from "@lowrank/lora";
import {
  type CausalLM,
  type Examples,
  metricsFile,
  type RunState,
  readMetrics,
  readState,
  type StepMetrics,
  saveModel,
  train,
} from "@lowrank/models";
import type { FileSystem } from "@lowrank/tensor";
import { checkSettings } from "../changes.js";
import type { Output } from "../output.js";
import { Progress } from "../progress.js";

/** A step of a run and its own time, as metrics.jsonl has them. */
export type TimedStep = Pick<StepMetrics, "step" | "loss" | "stepMs" | "isWarmUp">;

/** What is trained, on what, and where it is kept. */
export interface Training {
  readonly model: CausalLM;
  /** Null for full fine-tuning. */
  readonly adapter: Adapter | null;
  readonly examples: Examples;
  readonly lengthLimit: number;
  readonly steps: number;
  readonly batchSize: number;
  readonly seed: number;
  readonly peakRate: number;
  readonly warmup: number;
  /** The run's folder: its checkpoint, what it trained, metrics.jsonl. */
  readonly folder: string;
  readonly files: FileSystem;
  readonly saveEvery: number;
  readonly settings: RunState["settings"];
  readonly signal: AbortSignal;
  readonly output: Output;
}

/** How it went; null when it was interrupted, with a checkpoint in its folder. */
export interface Trained {
  readonly trainLoss: number;
  /** Most bytes on the device up to the last step. */
  readonly peakBytes: number;
  readonly steps: readonly TimedStep[];
}

/** Trains to the last step, from a checkpoint in the folder if there is one. Throws UsageError when that is of other settings. */
export async function trainInFolder(training: Training): Promise<Trained | null> {
  const { model, adapter, folder, files, output, steps, warmup, settings } = training;
  const state = await readState(files, folder);
  if (state) checkSettings(folder, state, { settings });
  const path = join(folder, "metrics.jsonl");
  const write = await metricsFile(path, state?.step ?? 0);
  const progress = new Progress(output, steps, state?.step ?? 0);
  const result = await train({
    model,
    parameters: adapter ? adapter.namedParameters() : model.namedParameters(),
    ...(adapter ? { rules: adapter.training } : {}),
    examples: training.examples,
    lengthLimit: training.lengthLimit,
    steps,
    batchSize: training.batchSize,
    seed: training.seed,
    schedule: optim.cosine({ peak: training.peakRate, warmup, steps }),
    generators: adapter ? [adapter.dropoutGenerator] : [],
    folder: {
      files,
      path: folder,
      every: training.saveEvery,
      settings,
      save: () => (adapter ? saveAdapter(adapter, folder, { files }) : saveModel(model, folder, { files, dtype: "as-stored" })),
    },
    resume: state !== null,
    signal: training.signal,
    async onStep(metrics: StepMetrics) {
      await write(metrics);
      progress.step(metrics);
    },
  });
  output.draw("");
  if (!result.isFinished) return null;
  return { trainLoss: result.trainLoss, peakBytes: result.peakBytes, steps: await stepsIn(folder) };
}

/** The steps that a run's metrics.jsonl holds; none where there is no such file. */
export async function stepsIn(folder: string): Promise<TimedStep[]> {
  const lines = await readMetrics(join(folder, "metrics.jsonl"));
  return lines.flatMap(({ step, fields: { loss, stepMs, isWarmUp } }) =>
    typeof loss === "number" && typeof stepMs === "number" && typeof isWarmUp === "boolean" ? [{ step, loss, stepMs, isWarmUp }] : [],
  );
}

/** Steps of a window: on some backends several losses become known at once, so that neighbouring times say little. */
const window = 8;

/**
 * The time of a step in milliseconds: the median of windows of several steps, or the mean where there are few. Steps that planned kernels are
 * left out; NaN where all of them did.
 */
export function medianStepMs(steps: readonly TimedStep[]): number {
  const times = steps.filter(({ isWarmUp }) => !isWarmUp).map(({ stepMs }) => stepMs);
  const count = Math.max(1, Math.floor(times.length / window));
  const size = times.length / count;
  const windows = Array.from({ length: count }, (_, i) => times.slice(Math.round(i * size), Math.round((i + 1) * size)));
  return median(windows.map((all) => all.reduce((sum, ms) => sum + ms, 0) / all.length));
}

/** The middle value, the mean of the two middle ones for an even number; NaN for none. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const [low = Number.NaN, high = low] = sorted.length % 2 === 0 ? sorted.slice(middle - 1, middle + 1) : sorted.slice(Math.floor(middle));
  return sorted.length % 2 === 0 ? (low + high) / 2 : low;
}
