import type { optim } from "@lowrank/autograd";
import { CheckpointError, NotFiniteError, type Tensor } from "@lowrank/tensor";
import { divergence } from "./error.js";
import type { RunFolder, TrainOptions } from "./run.js";
import { restoreState, saveState } from "./state.js";

/** How far a run has come: what a checkpoint holds beside tensors. */
export interface Progress {
  /** Steps done. */
  step: number;
  evalLossBefore: number | null;
  evalLoss: number | null;
  readonly recentLosses: number[];
}

/** Every tensor that a run changes, by its name in a checkpoint. */
function stateTensors({ parameters, rules, generators = [] }: TrainOptions, optimizer: optim.Optimizer): ReadonlyMap<string, Tensor> {
  return new Map([
    ...[...parameters].map(([name, t]) => [`parameter.${name}`, t] as const),
    ...[...optimizer.state()].map(([name, t]) => [`optimizer.${name}`, t] as const),
    ...[...(rules?.state?.() ?? [])].map(([name, t]) => [`method.${name}`, t] as const),
    ...generators.map((generator, i) => [`random.${i}`, generator.key] as const),
  ]);
}

/** A run's checkpoints, in its folder; without a folder nothing is written. */
export class Checkpoints {
  readonly #options: TrainOptions;
  readonly #folder: RunFolder | undefined;
  readonly #tensors: ReadonlyMap<string, Tensor>;
  /** The step that the run was resumed at. */
  #resumedAt: number | null = null;
  /** The step of the newest checkpoint. */
  #at: number | null = null;

  constructor(options: TrainOptions, optimizer: optim.Optimizer) {
    this.#options = options;
    this.#folder = options.folder;
    this.#tensors = stateTensors(options, optimizer);
  }

  /** Of the newest checkpoint; null where there is none. */
  get step(): number | null {
    return this.#at;
  }

  /** Where the run begins: at the folder's checkpoint when it resumes, else at step 0. Rejects with CheckpointError when it cannot be resumed. */
  async begin(): Promise<Progress> {
    const folder = this.#folder;
    if (!this.#options.resume || !folder) return { step: 0, evalLossBefore: null, evalLoss: null, recentLosses: [] };
    const { steps, rules } = this.#options;
    const { step, evalLossBefore, evalLoss, recentLosses } = await restoreState(folder.files, folder.path, this.#tensors, {
      onChanged: folder.onChanged,
    });
    if (step > steps)
      throw new CheckpointError(
        `${folder.path} holds a run at step ${step}, which is beyond the last of ${steps}. Resume it with more steps, or train into another folder.`,
        folder.path,
      );
    await rules?.restored?.();
    this.#resumedAt = step;
    this.#at = step;
    return { step, evalLossBefore, evalLoss, recentLosses: [...recentLosses] };
  }

  /** Whether one is written after a step, the last one aside. */
  isDue(step: number): boolean {
    return this.#folder !== undefined && this.#folder.every > 0 && step % this.#folder.every === 0;
  }

  /** Writes the state and then what the run is for, unless the newest checkpoint is of this step. Rejects with TrainingError for what is not finite. */
  async write(progress: Progress, rate: number): Promise<void> {
    const folder = this.#folder;
    if (!folder || this.#at === progress.step) return;
    const { settings, hashes = null, command = null } = folder;
    try {
      await saveState(folder.files, folder.path, this.#tensors, { ...progress, settings, hashes, command });
      await folder.save();
    } catch (error) {
      if (!(error instanceof NotFiniteError)) throw error;
      throw divergence(progress.step, `its update left ${error.tensor} without a finite value at ${error.at}`, rate, this.#at);
    }
    this.#at = progress.step;
    await this.#options.onCheckpoint?.(progress.step);
  }

  /** Writes the last one. A run killed between the state and the adapter finds its steps done; the adapter is written again all the same. */
  async finish(progress: Progress, rate: number): Promise<void> {
    await this.write(progress, rate);
    if (this.#resumedAt === progress.step) await this.#folder?.save();
  }
}
