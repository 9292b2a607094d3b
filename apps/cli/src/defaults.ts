import type { CausalLM } from "@lowrank/models";
import { methodOf } from "./method.js";

/** A method's peak learning rate for AdamW on a model 576 wide, and the power of the width with which it falls. */
interface Rate {
  readonly at576: number;
  readonly power: 0 | 1 | 1.5;
}

/**
 * Methods that work on hidden states of the model's width have rates that fall with it; (IA)³, VeRA and virtual tokens do not.
 * Falling as 1 / width agrees with Adam's rule in Yang et al. 2021 (muP, table 8); the parallel adapter's inner width grows with the model's
 * as well, and falls faster. docs/defaults.md has the sweeps.
 */
const rates: Readonly<Record<string, Rate>> = {
  full: { at576: 1e-4, power: 1 },
  parallel: { at576: 1e-4, power: 1.5 },
  houlsby: { at576: 1e-3, power: 1 },
  pfeiffer: { at576: 1e-3, power: 1 },
  norms: { at576: 1e-2, power: 1 },
  // Products of small numbers, some of which begin at 0.
  loha: { at576: 1e-2, power: 1 },
  lokr: { at576: 1e-2, power: 1 },
  adalora: { at576: 2e-2, power: 1 },
  ia3: { at576: 5e-2, power: 0 },
  vera: { at576: 5e-2, power: 0 },
  prefix: { at576: 1e-2, power: 0 },
  prompt: { at576: 3e-2, power: 0 },
  ptuning: { at576: 1e-3, power: 0 },
  "ptuning-v2": { at576: 1e-2, power: 0 },
};
const pairRate: Rate = { at576: 2e-3, power: 1 };

/** The sizes of a model that its defaults depend on. */
export type Sizes = Pick<CausalLM, "head" | "namedParameters">;

/** Peak learning rate for a method when none is given, with two digits. Pairs are scaled by alpha / rank, so that the rank does not enter. */
export function defaultLearningRate(method: string, model: Pick<Sizes, "head">): number {
  const { at576, power } = rates[methodOf(method)] ?? pairRate;
  return Number((at576 * (576 / model.head.inFeatures) ** power).toPrecision(2));
}

/** Parameters below which a model has so little to build on that a task takes it several times as many rows. */
const smallParameterCount = 20e6;

/** Passes over the data when neither --epochs nor --steps is given: as many as show a small data set often enough, and 1 for a large one. */
export function defaultEpochs(rowCount: number, model: Pick<Sizes, "namedParameters">): number {
  const parameterCount = [...model.namedParameters().values()].reduce((sum, { size }) => sum + size, 0);
  const shownRows = parameterCount < smallParameterCount ? 3600 : 900;
  return Math.min(12, Math.max(1, Math.round(shownRows / rowCount)));
}

/** Steps of linear rise when --warmup is not given. */
export function defaultWarmup(steps: number): number {
  return Math.min(20, Math.floor(steps / 20));
}
