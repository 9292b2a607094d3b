import type { optim } from "@lowrank/autograd";
import type { FileSystem, Generator, Tensor } from "@lowrank/tensor";
import type { Examples } from "../data/examples.js";
import type { TrainingRules } from "./rules.js";
import type { RunState } from "./state.js";
import type { TrainableModel } from "./step.js";

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
