import { largest, showShape, type Tensor } from "@lowrank/tensor";
import type { Adapter, AdapterOrigin } from "../adapter.js";
import { AdapterError, listed } from "../errors.js";
import { beside, eachInOrder } from "../linalg/beside.js";
import type { Decomposition } from "../linalg/svd.js";
import { inLayout } from "../methods/lora.js";
import { type AdaptableModel, type DenseLayer, denseLayers } from "../targeting/model.js";
import { builtAdapter, type HostPair } from "./build.js";
import {
  balancedPair,
  checkRankChoice,
  energyOf,
  type KeptLayer,
  type KeptReport,
  keptLayer,
  keptReport,
  type RankChoice,
} from "./rank.js";

/** What becomes of the difference of two models. */
export type ExtractOptions = RankChoice & {
  /** Path or hub name of the base, written into adapter_config.json. */
  readonly baseModel?: string;
  /** Told after each layer. */
  readonly onLayer?: (layer: KeptLayer, done: number, count: number) => void;
  /** Told what is unusual but allowed; `console.warn` when absent. */
  readonly onWarning?: (message: string) => void;
};

/** `KeptReport`, and what a pair on a dense layer cannot hold. */
export interface ExtractReport extends KeptReport {
  /** Parameters that differ and are not kept: norms, embeddings, biases, and dense weights that share a tensor with them. */
  readonly notKept: readonly string[];
}

/**
 * A LoRA adapter on `base` for what fine-tuning made of it: the SVD of W' − W, layer by layer, cut to a rank or to a share of its energy.
 * Layers that do not differ get no pair. The adapter is not in the forward; its scaling is 1. Throws AdapterError when the models differ
 * in parameters or shapes, when no dense layer differs, and for a rank or an energy out of range.
 */
export async function extractAdapter(
  base: AdaptableModel,
  tuned: AdaptableModel,
  options: ExtractOptions,
): Promise<{ readonly adapter: Adapter; readonly report: ExtractReport }> {
  checkRankChoice(options);
  checkSameShapes(base, tuned);
  const { baseModel = null, onWarning: warn = console.warn } = options;
  const after = denseLayers(tuned);
  const own = unshared(base);
  const pairs = new Map<string, HostPair>();
  const layers: KeptLayer[] = [];
  const all = [...denseLayers(base)].filter(([, { weight }]) => own.has(weight));
  const kept = new Set<Tensor>(all.map(([, { weight }]) => weight));
  let done = 0;
  await eachInOrder(
    all,
    ([, { inFeatures, outFeatures }]) => 8 * inFeatures * outFeatures,
    async ([name, layer]) => {
      const other = after.get(name);
      const delta = other && (await difference(matrixOf(other), matrixOf(layer)));
      return async () => delta && cutToChoice(delta, layer, options);
    },
    (cut, [name, { inFeatures, outFeatures }]) => {
      done++;
      if (!cut) return;
      const { decomposition, rank, energy } = cut;
      pairs.set(name, balancedPair(decomposition, rank, outFeatures, inFeatures));
      const line = keptLayer(name, decomposition.s, rank, energy);
      layers.push(line);
      options.onLayer?.(line, done, all.length);
    },
  );
  const notKept = await changedBeside(base, tuned, kept);
  if (layers.length === 0) {
    throw new AdapterError(
      `No dense layer differs between the two models${notKept.length > 0 ? `, only ${listed(notKept, 6)}` : ""}, so there is no adapter to extract. Give the base and a model that was trained from it.`,
      notKept,
    );
  }
  const rank = options.rank ?? largest(layers.map((layer) => layer.rank));
  const origin: AdapterOrigin = { baseModel, revision: null, taskType: "CAUSAL_LM", autoMapping: null, quantization: null };
  return { adapter: builtAdapter(base, pairs, { rank, origin, warn }), report: { ...keptReport(layers), notKept } };
}

/** A layer's change, cut to a rank or a share of its energy, which is ‖W' − W‖². */
interface Cut {
  readonly decomposition: Decomposition;
  readonly rank: number;
  readonly energy: number;
}

/** The SVD of W' − W, cut to what was asked for; null where nothing differs. */
async function cutToChoice(delta: Float64Array, layer: DenseLayer, choice: RankChoice): Promise<Cut | null> {
  const energy = energyOf(delta);
  if (energy === 0) return null;
  const [rows, columns] = [layer.outFeatures, layer.inFeatures];
  const sizes = { rows, columns };
  const decomposition = await (choice.rank === undefined
    ? beside("svdOfEnergy", [delta, rows, columns, choice.energy], sizes)
    : beside("svd", [delta, rows, columns, choice.rank], sizes));
  return { decomposition, rank: choice.rank ?? decomposition.s.length, energy };
}

function checkSameShapes(base: AdaptableModel, tuned: AdaptableModel): void {
  const [before, after] = [base.namedParameters(), tuned.namedParameters()];
  const problems: string[] = [];
  for (const [name, { shape }] of before) {
    const other = after.get(name);
    if (!other) problems.push(`${name} is only in the base`);
    else if (showShape(other.shape) !== showShape(shape))
      problems.push(`${name} is ${showShape(shape)} in the base, ${showShape(other.shape)} in the tuned model`);
  }
  for (const name of after.keys()) if (!before.has(name)) problems.push(`${name} is only in the tuned model`);
  if (problems.length === 0) return;
  throw new AdapterError(
    `The two models do not have the same parameters: ${listed(problems, 6)}. Give the base and a model that was trained from this very base.`,
    problems,
  );
}

/** Weights of one module only: a pair on a layer would not change what an embedding tied to it does. */
function unshared(model: AdaptableModel): ReadonlySet<Tensor> {
  const users = new Map<Tensor, number>();
  for (const module of model.namedModules().values()) {
    const { weight } = module as { readonly weight?: Tensor };
    if (weight) users.set(weight, (users.get(weight) ?? 0) + 1);
  }
  return new Set([...users].filter(([, count]) => count === 1).map(([weight]) => weight));
}

function matrixOf(layer: DenseLayer): Tensor {
  return inLayout(layer, layer.weight);
}

/** x − y in float64 on the host. */
async function difference(x: Tensor, y: Tensor): Promise<Float64Array> {
  const [left, right] = await Promise.all([x.cast("f32").data(), y.cast("f32").data()]);
  const result = new Float64Array(left.length);
  // A plain loop: a model has a hundred million of these.
  for (let i = 0; i < result.length; i++) result[i] = (left[i] ?? 0) - (right[i] ?? 0);
  return result;
}

/** Whether any number differs, found on the device: an embedding is larger than all that a layer needs. */
async function differs(x: Tensor, y: Tensor): Promise<boolean> {
  const most = x.cast("f32").sub(y.cast("f32")).abs().max();
  const value = await most.item();
  most.dispose();
  return value !== 0;
}

async function changedBeside(base: AdaptableModel, tuned: AdaptableModel, kept: ReadonlySet<Tensor>): Promise<readonly string[]> {
  const after = tuned.namedParameters();
  const changed: string[] = [];
  for (const [name, parameter] of base.namedParameters()) {
    const other = after.get(name);
    if (kept.has(parameter) || !other) continue;
    if (await differs(other, parameter)) changed.push(name);
  }
  return changed;
}
