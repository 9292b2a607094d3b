import { nn } from "@lowrank/autograd";
import { type Tensor, zeros } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import { loraFromPeft, loraToPeft } from "../peft/lora.js";
import { byPattern, matchLayers, type TargetOptions } from "../targeting/match.js";
import type { DenseLayer } from "../targeting/model.js";
import { defineMethod, type Method, onEach, type PlaceContext, wrapping } from "./method.js";

/** How a low-rank pair is set up. Names in parentheses are PEFT's. */
export interface LoraOptions extends TargetOptions {
  /** Inner size of the pair (`r`), at least 1. Default 8. */
  readonly rank: number;
  /** Numerator of the scaling (`lora_alpha`). Default 8. */
  readonly alpha: number;
  /** Share of the bypass's input that is zeroed while training (`lora_dropout`), in [0, 1). Default 0. */
  readonly dropout: number;
  /** Scales by alpha / √rank instead of alpha / rank (`use_rslora`; Kalajdzievski 2023). */
  readonly rslora: boolean;
  /** A's first values (`init_lora_weights`): "kaiming" uniform in ±1/√in as PEFT, or "gaussian" with deviation 1/rank as the paper. */
  readonly init: "kaiming" | "gaussian";
  /** Another rank for modules whose name ends in a pattern (`rank_pattern`). */
  readonly rankPattern: Readonly<Record<string, number>>;
  /** Another alpha likewise (`alpha_pattern`). */
  readonly alphaPattern: Readonly<Record<string, number>>;
}

/** The pair on one layer. */
export interface LowRankPair {
  /** [rank, in] */
  readonly a: Tensor;
  /** [out, rank] */
  readonly b: Tensor;
  readonly scaling: number;
  /** What the bypass sees: x with dropout while the layer trains. */
  input(x: Tensor): Tensor;
  /** scaling · B A x over the last axis, [..., in] → [..., out]. */
  bypass(x: Tensor): Tensor;
  /** scaling · B A, [out, in]. */
  delta(): Tensor;
}

/** Defaults and checks that all methods with a low-rank pair share. Throws AdapterError. */
export function loraOptions(given: Partial<LoraOptions>): LoraOptions {
  const { rank = 8, alpha = 8, dropout = 0, rslora = false, init = "kaiming", rankPattern = {}, alphaPattern = {}, ...targets } = given;
  for (const [name, value] of [["rank", rank], ...Object.entries(rankPattern)] as const) {
    if (!Number.isInteger(value) || value < 1)
      throw new AdapterError(
        `${name === "rank" ? "rank" : `rankPattern "${name}"`} is ${value}. It is a whole number of at least 1; 4 to 64 are usual.`,
        [name],
      );
  }
  for (const [name, value] of [["alpha", alpha], ...Object.entries(alphaPattern)] as const) {
    if (!Number.isFinite(value))
      throw new AdapterError(
        `${name === "alpha" ? "alpha" : `alphaPattern "${name}"`} is ${value}. It is a number; the rank or twice the rank is usual.`,
        [name],
      );
  }
  if (!(dropout >= 0 && dropout < 1))
    throw new AdapterError(`dropout is ${dropout}. It is a share from 0 up to, but not including, 1.`, ["dropout"]);
  if (init !== "kaiming" && init !== "gaussian")
    throw new AdapterError(`init is "${String(init)}". Use "kaiming" or "gaussian".`, ["init"]);
  return { ...targets, rank, alpha, dropout, rslora, init, rankPattern, alphaPattern };
}

/** What B A is multiplied by on a layer whose pair has this rank. */
export function scalingOf(options: LoraOptions, name: string, rank: number): number {
  return byPattern(options.alphaPattern, name, options.alpha) / (options.rslora ? Math.sqrt(rank) : rank);
}

/** A and B for a layer, A random and B zero, so that training starts exactly at the pretrained model. */
export function lowRankPair(
  layer: DenseLayer,
  options: LoraOptions,
  { name, generator, dropoutGenerator, warn }: PlaceContext,
): LowRankPair {
  const rank = byPattern(options.rankPattern, name, options.rank);
  const { inFeatures, outFeatures } = layer;
  const full = Math.min(inFeatures, outFeatures);
  if (rank > full)
    warn(`rank ${rank} on ${name} (${inFeatures} to ${outFeatures}) is above the full rank ${full}: it costs more and can learn no more.`);
  const a =
    options.init === "gaussian" ? generator.normal([rank, inFeatures], 0, 1 / rank) : nn.kaimingUniform([rank, inFeatures], { generator });
  const b = zeros([outFeatures, rank], { device: generator.device });
  const scaling = scalingOf(options, name, rank);
  return {
    a,
    b,
    scaling,
    input: (x) => (layer.isTraining ? nn.dropout(x, options.dropout, dropoutGenerator) : x),
    bypass: (x) => x.matmul(a.t()).matmul(b.t()).mul(scaling),
    delta: () => b.matmul(a).mul(scaling),
  };
}

/** A matrix [out, in] in the layout of the layer's own weight, and back. */
export function inLayout(layer: DenseLayer, matrix: Tensor): Tensor {
  return layer.isTransposed ? matrix.t() : matrix;
}

/** LoRA (Hu et al. 2021, eq. 3): h = W0 x + (alpha / r) B A x, with W0 frozen, A random and B zero. Merged: W = W0 + (alpha / r) B A. */
export const lora: Method<LoraOptions, DenseLayer> = defineMethod("lora", {
  options: loraOptions,
  places: matchLayers,
  attach: onEach((layer, options, context) => {
    const pair = lowRankPair(layer, options, context);
    return {
      parameters: { "lora_A.weight": pair.a, "lora_B.weight": pair.b },
      enable: wrapping(layer, (x, next) => next(x).add(pair.bypass(pair.input(x)))),
      merge: () => {
        const { weight } = layer;
        const delta = (): Tensor => inLayout(layer, pair.delta());
        return [{ weight, value: weight.add(delta()), kept: [], restore: (merged) => merged.sub(delta()) }];
      },
    };
  }),
  toPeft: (options, places) => loraToPeft(options, places, { use_dora: false }),
  fromPeft: (fields) => loraFromPeft(fields, { use_dora: false }),
});
