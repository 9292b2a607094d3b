import { largest } from "@lowrank/tensor";
import type { Adapter } from "../adapter.js";
import { beside, eachInOrder } from "../linalg/beside.js";
import type { LoraOptions } from "../methods/lora.js";
import { type Factors, factorsOf } from "../several/factors.js";
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
  rankOfEnergy,
} from "./rank.js";

/** How an adapter is resized. */
export type ResizeOptions = RankChoice & {
  /** Seed of the rows of A that a larger rank adds. Default 0. */
  readonly seed?: number;
  /** Receives the name of each layer once it is resized, and how many of all are. */
  readonly onLayer?: (name: string, done: number, count: number) => void;
  /** Told what is unusual but allowed; `console.warn` when absent. */
  readonly onWarning?: (message: string) => void;
};

/**
 * A LoRA adapter of another rank with the same effect, or the nearest to it (Eckart & Young 1936): the SVD of scaling · B A, out of the thin
 * QR of both factors, so that the product is never there. A larger rank adds random rows to A and zero columns to B, which can be trained.
 * The new adapter is on the same model, its scaling is 1, and it is not in the forward. Throws AdapterError for an adapter that is not
 * plain LoRA and for a rank or an energy out of range.
 */
export async function resizeAdapter(
  adapter: Adapter,
  options: ResizeOptions,
): Promise<{ readonly adapter: Adapter; readonly report: KeptReport }> {
  checkRankChoice(options);
  const { seed = 0, onWarning: warn = console.warn } = options;
  const pairs = new Map<string, HostPair>();
  const layers: KeptLayer[] = [];
  const all = [...factorsOf(adapter, "resized")];
  await eachInOrder(
    all,
    ([, { layer, rank }]) => 8 * rank * (layer.inFeatures + layer.outFeatures),
    async ([, factors]) => {
      const [b, a] = await scaledFactors(factors);
      const { layer, rank } = factors;
      const [rows, columns] = [layer.outFeatures, layer.inFeatures];
      return () => beside("productSvd", [b, a, rows, rank, columns], { rows: rows + columns, columns: rank });
    },
    (decomposition, [name, { layer }]) => {
      const { s } = decomposition;
      const energy = energyOf(s);
      const rank = options.rank ?? rankOfEnergy(s, options.energy ?? 1, energy) ?? s.length;
      pairs.set(name, balancedPair(decomposition, rank, layer.outFeatures, layer.inFeatures));
      layers.push(keptLayer(name, s, rank, energy));
      options.onLayer?.(name, layers.length, all.length);
    },
  );
  const { dropout, exclude } = adapter.options as LoraOptions;
  const rank = options.rank ?? largest(layers.map((layer) => layer.rank));
  const targets = adapter.method.toPeft(adapter.options, adapter.places, adapter.attachments)["target_modules"] as
    | readonly string[]
    | string;
  const built = builtAdapter(adapter.model, pairs, { rank, targets, exclusions: [exclude], dropout, origin: adapter.origin, warn, seed });
  return { adapter: built, report: keptReport(layers) };
}

/** scaling · B and A, on the host. */
async function scaledFactors({ a, b, scaling }: Factors): Promise<readonly [b: Float64Array, a: Float64Array]> {
  const [first, second] = await Promise.all([a.data(), b.data()]);
  return [Float64Array.from(second, (value) => scaling * value), Float64Array.from(first)];
}
