import { nn } from "@lowrank/autograd";
import { type Tensor, tensor, zeros } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import { matchLayers, type TargetOptions } from "../targeting/match.js";
import type { DenseLayer } from "../targeting/model.js";
import { inLayout } from "./lora.js";
import { defineMethod, type Method, type PlaceContext, wrapping } from "./method.js";
import { adaloraFromPeft, adaloraToPeft } from "./peft-adalora.js";
import { rankAllocation, type TripletAttachment } from "./rank-allocation.js";
import { checkSizes } from "./sizes.js";

/** How AdaLoRA is set up. Names in parentheses are PEFT's. */
export interface AdaloraOptions extends TargetOptions {
  /** Rank of every layer at first (`init_r`). Default 12. */
  readonly initRank: number;
  /** Mean rank of the layers at the end (`target_r`). Default 8. */
  readonly targetRank: number;
  /** Numerator of the scaling alpha / initRank (`lora_alpha`). Default 8. */
  readonly alpha: number;
  /** Share of the bypass's input that is zeroed while training (`lora_dropout`), in [0, 1). Default 0. */
  readonly dropout: number;
  /** Optimizer steps of the whole training (`total_step`); has no default. */
  readonly totalSteps: number;
  /** Steps before the first triplet is taken (`tinit`). Default 0. */
  readonly initialSteps: number;
  /** Steps at the end in which the ranks stay (`tfinal`). Default 0. */
  readonly finalSteps: number;
  /** Steps from one allocation to the next (`deltaT`). Default 1. */
  readonly interval: number;
  /** Memory of the importances (`beta1`), in (0, 1). Default 0.85. */
  readonly beta1: number;
  /** Memory of their variation (`beta2`), in (0, 1). Default 0.85. */
  readonly beta2: number;
  /** Weight of the penalty that keeps A's rows and B's columns orthogonal (`orth_reg_weight`). Default 0.5. */
  readonly orthogonality: number;
  /** The triplets that are left of an adapter that was trained, by module (`rank_pattern`). */
  readonly kept?: Readonly<Record<string, readonly boolean[]>>;
}

/** Defaults and checks. Throws AdapterError. */
function adaloraOptions(given: Partial<AdaloraOptions>): AdaloraOptions {
  const { initRank = 12, targetRank = 8, alpha = 8, dropout = 0, initialSteps = 0, finalSteps = 0, interval = 1, ...rest } = given;
  const { beta1 = 0.85, beta2 = 0.85, orthogonality = 0.5, totalSteps, ...others } = rest;
  checkSizes({ rank: initRank, alpha, dropout });
  checkSizes({ rank: targetRank });
  if (totalSteps === undefined)
    throw new AdapterError("totalSteps is missing, by which AdaLoRA spreads its budget. Give the number of optimizer steps.", [
      "totalSteps",
    ]);
  for (const [name, value] of Object.entries({ initialSteps, finalSteps, interval, totalSteps })) {
    const least = name === "interval" || name === "totalSteps" ? 1 : 0;
    if (!Number.isInteger(value) || value < least)
      throw new AdapterError(`${name} is ${value}. It is a whole number of at least ${least}.`, [name]);
  }
  for (const [name, value] of Object.entries({ beta1, beta2 })) {
    if (!(value > 0 && value < 1)) throw new AdapterError(`${name} is ${value}. It lies between 0 and 1.`, [name]);
  }
  if (initialSteps >= totalSteps - finalSteps)
    throw new AdapterError(
      `initialSteps (${initialSteps}) and finalSteps (${finalSteps}) leave no step of totalSteps (${totalSteps}) to change ranks in. Make them smaller.`,
      ["initialSteps", "finalSteps", "totalSteps"],
    );
  const steps = { totalSteps, initialSteps, finalSteps, interval };
  return { ...others, initRank, targetRank, alpha, dropout, ...steps, beta1, beta2, orthogonality };
}

/** Rows `kept` of a matrix, [rank, n] → [kept, n]. */
function rowsOf(matrix: Tensor, kept: readonly boolean[]): Tensor {
  const indices = kept.flatMap((isKept, index) => (isKept ? [index] : []));
  const { device } = matrix;
  if (indices.length === 0) return zeros([0, matrix.shape[1] ?? 0], { device });
  return indices.length === kept.length ? matrix : matrix.gather(tensor(indices, { device, dtype: "i32" }), 0);
}

function attachment(layer: DenseLayer, options: AdaloraOptions, context: PlaceContext): TripletAttachment {
  const { name, generator, dropoutGenerator } = context;
  const rank = options.kept?.[name]?.filter(Boolean).length ?? options.initRank;
  const a = generator.normal([rank, layer.inFeatures], 0, 0.02);
  const b = generator.normal([layer.outFeatures, rank], 0, 0.02);
  const e = zeros([rank, 1], { device: generator.device });
  // The rank at first counts, whatever has been taken since.
  const scaling = options.alpha / (options.initRank + 1e-5);
  const input = (x: Tensor): Tensor => (layer.isTraining ? nn.dropout(x, options.dropout, dropoutGenerator) : x);
  const delta = (): Tensor => inLayout(layer, b.matmul(a.mul(e)).mul(scaling));
  const made: TripletAttachment = {
    parameters: { lora_A: a, lora_B: b, lora_E: e },
    kept: new Array<boolean>(rank).fill(true),
    saved: () => ({ lora_A: rowsOf(a, made.kept), lora_B: rowsOf(b.t(), made.kept).t(), lora_E: rowsOf(e, made.kept) }),
    // A layer may have lost all of its triplets.
    enable: wrapping(layer, (x, next) => {
      const result = next(x);
      return rank === 0 ? result : result.add(input(x).matmul(a.mul(e).t()).matmul(b.t()).mul(scaling));
    }),
    merge: () => {
      const { weight } = layer;
      return rank === 0 ? [] : [{ weight, value: weight.add(delta()), restore: (merged) => merged.sub(delta()) }];
    },
  };
  return made;
}

/**
 * AdaLoRA (Zhang et al. 2023, eq. 3): h = W0 x + (alpha / r) B (A ⊙ E) x, like a singular value decomposition with E as the values, at
 * first 0. While training, triplets of little importance are taken, so that each layer ends with a rank of its own; the file holds those
 * that are left. Merged: W = W0 + (alpha / r) B (A ⊙ E). peft.AdaLoraConfig.
 */
export const adalora: Method<AdaloraOptions, DenseLayer, TripletAttachment> = defineMethod("adalora", {
  options: adaloraOptions,
  places: matchLayers,
  riders: ["bias", "modulesToSave"],
  attach: (places, options, context) =>
    new Map([...places].map(([name, layer]) => [name, attachment(layer, options, { ...context, name })])),
  training: rankAllocation,
  toPeft: adaloraToPeft,
  fromPeft: adaloraFromPeft,
});
