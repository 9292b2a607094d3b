import { Generator, largest } from "@lowrank/tensor";
import type { Adapter } from "../adapter.js";
import { AdapterError, listed } from "../errors.js";
import { beside, eachInOrder } from "../linalg/beside.js";
import { type HostMatrix, product } from "../linalg/product.js";
import type { Decomposition } from "../linalg/svd.js";
import type { LoraOptions } from "../methods/lora.js";
import { asPlain } from "../methods/pair.js";
import { type Factors, factorsOf } from "../several/factors.js";
import { deviceOf } from "../targeting/model.js";
import { checkedDensity, type MajoritySign, magnitudePruned, randomPruned, signedMean, weightedSum } from "./arithmetic.js";
import { builtAdapter, type HostPair } from "./build.js";

/** The ways to combine, by PEFT's names. */
export const combineMethods = [
  "svd",
  "linear",
  "cat",
  "ties",
  "ties_svd",
  "dare_linear",
  "dare_ties",
  "dare_linear_svd",
  "dare_ties_svd",
  "magnitude_prune",
  "magnitude_prune_svd",
] as const;

export type CombineMethod = (typeof combineMethods)[number];

/** How adapters are combined. Names in parentheses are PEFT's. */
export interface CombineOptions {
  /** A factor for each adapter; below 0 takes an adapter's effect away. Each 1 when absent. */
  readonly weights?: readonly number[];
  /** "cat" is exact at the sum of the ranks, "svd" the nearest of its rank, "linear" mixes A with A and B with B. Default "svd". */
  readonly method?: CombineMethod;
  /** The share of numbers that pruning keeps, above 0 and up to 1; needed by ties, dare and magnitude_prune. */
  readonly density?: number;
  /** Seed of what DARE drops. Default 0. */
  readonly seed?: number;
  /** How TIES finds the sign of the majority (`majority_sign_method`). Default "total". */
  readonly majoritySign?: MajoritySign;
  /** Rank of the result of the methods with an SVD (`svd_rank`); the adapters' largest when absent. */
  readonly rank?: number;
  /** Receives the name of each layer once it is combined, and how many of all are. */
  readonly onLayer?: (name: string, done: number, count: number) => void;
  /** Told what is unusual but allowed; `console.warn` when absent. */
  readonly onWarning?: (message: string) => void;
}

/** An adapter's factors on one layer, on the host. */
interface Task {
  readonly a: HostMatrix;
  readonly b: HostMatrix;
  readonly rank: number;
  readonly scaling: number;
  readonly weight: number;
}

/** Of a layer's weight, [rows, columns]. */
interface Sizes {
  readonly rows: number;
  readonly columns: number;
}

/** Mixes several tensors of the same size into one. */
type Mix = (tasks: readonly HostMatrix[], weights: readonly number[]) => Promise<Float64Array>;

/**
 * One LoRA adapter out of several on the same model, as PEFT's add_weighted_adapter makes it; its scaling is 1 and it is not in the
 * forward: `disable()` the others and `enable()` it. A single adapter is always combined linearly (weight −1 negates it). An adapter
 * takes no part on layers that it leaves out. Throws AdapterError for adapters that are not plain LoRA, that differ in rank where the
 * method mixes A with A, that mix lists of targets with expressions, and for options out of range.
 */
export async function combineAdapters(adapters: readonly Adapter[], options: CombineOptions = {}): Promise<Adapter> {
  const { weights = adapters.map(() => 1), rank: asked, onWarning: warn = console.warn } = options;
  const [first] = adapters;
  if (!first || adapters.some(({ model }) => model !== first.model))
    throw new AdapterError("Combining needs at least one adapter, and all of them on one model. Load them on the same model first.");
  const chosen = options.method ?? "svd";
  if (!combineMethods.includes(chosen))
    throw new AdapterError(`There is no way "${String(chosen)}" to combine adapters. Choose among ${combineMethods.join(", ")}.`, [
      "method",
    ]);
  if (weights.length !== adapters.length || weights.some((weight) => !Number.isFinite(weight))) {
    throw new AdapterError(
      `weights are [${weights.join(", ")}] for ${adapters.length} adapters. Give a number for each adapter, in their order.`,
      ["weights"],
    );
  }
  const method = adapters.length === 1 ? "linear" : chosen;
  const isSvd = method.endsWith("svd");
  if (asked !== undefined && (!isSvd || !Number.isInteger(asked) || asked < 1))
    throw new AdapterError(
      `rank is ${asked} with the method "${method}". A rank of at least 1 can be chosen where the method ends in svd; leave it out.`,
      ["rank"],
    );
  const factors = adapters.map((adapter) => factorsOf(adapter, "combined"));
  const ranks = adapters.map((adapter) => largestRank(asPlain(adapter.options as LoraOptions)));
  const isFactorwise = !isSvd && method !== "cat";
  if (isFactorwise && new Set(ranks).size > 1) {
    throw new AdapterError(
      `"${method}" mixes A with A and B with B, and the adapters have the ranks ${ranks.join(", ")}. Use "cat", "svd" or a method that ends in _svd, or resize them to one rank.`,
      ["rank"],
    );
  }
  const rank = method === "cat" ? ranks.reduce((sum, r) => sum + r, 0) : isSvd ? (asked ?? largest(ranks)) : (ranks[0] ?? 1);
  const targets = commonTargets(adapters);
  const mix = mixing(method, options, new Generator(deviceOf(first.model), options.seed ?? 0));
  const pairs = new Map<string, HostPair>();
  const names = inOrder(factors);
  await eachInOrder(
    names,
    (name) => {
      const { rows, columns } = sizesOf(factors, name);
      return isSvd ? 8 * rows * columns : 0;
    },
    async (name) => {
      const own = factors.flatMap((of, index) => ({ factors: of.get(name), weight: weights[index] ?? 0 }));
      const tasks = await Promise.all(own.flatMap(({ factors: pair, weight }) => (pair ? [taskOf(pair, weight)] : [])));
      const sizes = sizesOf(factors, name);
      if (method === "cat") return async () => concatenated(tasks, rank, sizes);
      if (method === "svd") return async () => cutTo(rank, await ofSum(tasks, sizes), sizes);
      // In order, since DARE draws random numbers.
      if (!isSvd) {
        const pair = await mixed(tasks, name, mix);
        return async () => pair;
      }
      const delta = await mixedDelta(tasks, sizes, mix);
      return async () => cutTo(rank, await beside("svd", [delta, sizes.rows, sizes.columns, rank], sizes), sizes);
    },
    (pair, name) => {
      pairs.set(name, pair);
      options.onLayer?.(name, pairs.size, names.length);
    },
  );
  const { dropout } = first.options as LoraOptions;
  const exclusions = adapters.map(({ options: own }) => (own as LoraOptions).exclude);
  return builtAdapter(first.model, pairs, { rank, targets, exclusions, dropout, origin: first.origin, warn });
}

function largestRank({ rank, rankPattern }: LoraOptions): number {
  return largest(Object.values(rankPattern), rank);
}

/** All layers that some adapter is on, in the model's order. */
function inOrder(factors: readonly ReadonlyMap<string, Factors>[]): readonly string[] {
  return [...new Set(factors.flatMap((of) => [...of.keys()]))];
}

function sizesOf(factors: readonly ReadonlyMap<string, Factors>[], name: string): Sizes {
  const layer = factors.find((of) => of.has(name))?.get(name)?.layer;
  return { rows: layer?.outFeatures ?? 0, columns: layer?.inFeatures ?? 0 };
}

async function taskOf({ a, b, rank, scaling }: Factors, weight: number): Promise<Task> {
  const [first, second] = await Promise.all([a.data(), b.data()]);
  return { a: Float64Array.from(first), b: Float64Array.from(second), rank, scaling, weight };
}

/** The union of the targets, as PEFT writes it. Throws AdapterError for lists beside expressions. */
function commonTargets(adapters: readonly Adapter[]): readonly string[] | string {
  const targets = adapters.map(({ method, options, places, attachments }) => method.toPeft(options, places, attachments)["target_modules"]);
  if (targets.every((target) => Array.isArray(target))) return [...new Set(targets.flat() as string[])].sort();
  if (targets.every((target) => typeof target === "string")) return [...new Set(targets)].map((target) => `(${target})`).join("|");
  throw new AdapterError(
    `Some adapters list their targets and others give an expression (${listed(targets.map(String))}), which PEFT does not combine. Give all of them lists of names.`,
    ["targets"],
  );
}

function mixing(method: CombineMethod, { density, majoritySign = "total" }: CombineOptions, generator: Generator): Mix {
  if (majoritySign !== "total" && majoritySign !== "frequency")
    throw new AdapterError(`majoritySign is "${String(majoritySign)}". Use "total" or "frequency".`, ["majoritySign"]);
  const [kind = ""] = method.split(/_?svd$/);
  const share = kind === "" || kind === "linear" || kind === "cat" ? 1 : checkedDensity(method, density);
  const isRandom = kind.startsWith("dare");
  const isSigned = kind.endsWith("ties");
  return async (tasks, weights) => {
    const pruned: HostMatrix[] = [];
    for (const values of tasks) {
      if (!isRandom || share >= 1) pruned.push(magnitudePruned(values, share));
      else pruned.push(randomPruned(values, share, await generator.uniform([values.length]).data()));
    }
    return isSigned ? signedMean(pruned, weights, majoritySign) : weightedSum(pruned, weights);
  };
}

/** A₁ with its weight and scaling above A₂, B₁ beside B₂; zeros up to the rank of the layer with the most. */
function concatenated(tasks: readonly Task[], rank: number, { rows, columns }: Sizes): HostPair {
  const a = new Float64Array(rank * columns);
  const b = new Float64Array(rows * rank);
  let at = 0;
  for (const task of tasks) {
    a.set(
      task.a.map((value) => value * task.weight * task.scaling),
      at * columns,
    );
    for (let row = 0; row < rows; row++) b.set(task.b.subarray(row * task.rank, (row + 1) * task.rank), row * rank + at);
    at += task.rank;
  }
  return { a, b, rank };
}

/** A = Vᵀ and B = U S of the best approximation of this rank to the mixed deltas, zeros beyond the full rank. */
function cutTo(rank: number, { u, s, v }: Decomposition, { rows, columns }: Sizes): HostPair {
  const a = new Float64Array(rank * columns);
  const b = new Float64Array(rows * rank);
  for (const [k, value] of s.subarray(0, rank).entries()) {
    for (let column = 0; column < columns; column++) a[k * columns + column] = v[column * s.length + k] ?? 0;
    for (let row = 0; row < rows; row++) b[row * rank + k] = (u[row * s.length + k] ?? 0) * value;
  }
  return { a, b, rank };
}

/** Σ weight · scaling · B A is one product, of the stacked factors: the sum is never there. */
function ofSum(tasks: readonly Task[], sizes: Sizes): Promise<Decomposition> {
  const rank = tasks.reduce((sum, task) => sum + task.rank, 0);
  const { a, b } = concatenated(tasks, rank, sizes);
  // The work is that of the thin factors.
  return beside("productSvd", [b, a, sizes.rows, rank, sizes.columns], { rows: sizes.rows + sizes.columns, columns: rank });
}

/** Pruning and signs leave no product: the deltas are mixed number by number. */
function mixedDelta(tasks: readonly Task[], { rows, columns }: Sizes, mix: Mix): Promise<Float64Array> {
  const deltas = tasks.map(({ a, b, rank: inner, scaling }) => product(b, a, rows, inner, columns).map((value) => value * scaling));
  const weights = tasks.map(({ weight }) => weight);
  return mix(deltas, weights);
}

/** A's mixed with A's and B's with B's, each by the root of weight · scaling and the sign on A's side. */
async function mixed(tasks: readonly Task[], name: string, mix: Mix): Promise<HostPair> {
  const ranks = tasks.map(({ rank }) => rank);
  if (new Set(ranks).size > 1)
    throw new AdapterError(`On ${name} the adapters have the ranks ${ranks.join(", ")}. Use "cat", "svd" or a method that ends in _svd.`, [
      name,
    ]);
  const factors = tasks.map(({ weight, scaling }) => weight * scaling);
  const a = await mix(
    tasks.map((task) => task.a),
    factors.map((factor) => Math.sqrt(Math.abs(factor)) * (factor >= 0 ? 1 : -1)),
  );
  const b = await mix(
    tasks.map((task) => task.b),
    factors.map((factor) => Math.sqrt(Math.abs(factor))),
  );
  return { a, b, rank: ranks[0] ?? 1 };
}
