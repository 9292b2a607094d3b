import { concat, realizeNow, tensor } from "@lowrank/tensor";
import { type Adapter, type AdapterOrigin, attach } from "../adapter.js";
import type { HostMatrix } from "../linalg/product.js";
import type { LoraOptions } from "../methods/lora.js";
import { type AnyMethod, methodNamed } from "../methods/table.js";
import { matchLayers, type TargetOptions } from "../targeting/match.js";
import { type AdaptableModel, deviceOf } from "../targeting/model.js";

/** A pair on the host; with a scaling of 1 the product B A is all that it adds to the weight. */
export interface HostPair {
  /** [rank, in] */
  readonly a: HostMatrix;
  /** [out, rank] */
  readonly b: HostMatrix;
  readonly rank: number;
  /** Rows of A that count, where the rest is to be the random values of a new adapter; all of them when absent. */
  readonly filled?: number;
}

/** What the new adapter takes over. */
export interface BuildSettings {
  readonly rank: number;
  readonly targets?: readonly string[] | string;
  /** What the adapters that it comes from leave out, of each that says so: the first of them that leaves none of the pairs out is kept. */
  readonly exclusions?: readonly TargetOptions["exclude"][];
  readonly dropout?: number;
  readonly origin: AdapterOrigin;
  readonly warn: (message: string) => void;
  /** Seed of A's first values, where a pair has fewer rows than its layer gets. */
  readonly seed?: number;
}

/**
 * A LoRA adapter whose scaling is 1 and whose pairs are these, by layer; it is not in the forward yet. Layers whose rank is not `rank`
 * are named in its rankPattern. Takes the pairs out of the map one by one, so that each is there once.
 */
export function builtAdapter(model: AdaptableModel, pairs: Map<string, HostPair>, settings: BuildSettings): Adapter {
  const { rank, dropout = 0, origin, warn, seed = 0 } = settings;
  const others = [...pairs].filter(([, pair]) => pair.rank !== rank);
  const pattern = Object.fromEntries(others.map(([name, pair]) => [name.replaceAll(".", "\\."), pair.rank]));
  const names = [...pairs.keys()];
  const targets = settings.targets !== undefined && fits(model, settings.targets, names) ? settings.targets : shortest(model, names);
  const exclude = settings.exclusions?.find((each) => each !== undefined && each.length > 0 && fits(model, targets, names, each));
  const options: Partial<LoraOptions> = {
    rank,
    alpha: rank,
    dropout,
    targets,
    ...(exclude !== undefined && { exclude }),
    rankPattern: pattern,
    alphaPattern: pattern,
  };
  // The table's own entry: it makes and takes LoRA's options.
  const method = methodNamed("lora") as AnyMethod;
  const adapter = attach(model, method, options, { seed, dropoutGenerator: undefined, origin, warn, isLoaded: true });
  const device = deviceOf(model);
  for (const [name, pair] of pairs) {
    const { "lora_A.weight": a, "lora_B.weight": b } = adapter.attachments.get(name)?.parameters ?? {};
    const { rank: count, filled = count } = pair;
    const values = a && tensor(pair.a, { device, shape: a.shape });
    if (a && values) a.assign(filled < count ? concat([values.narrow(0, 0, filled), a.narrow(0, filled, count - filled)]) : values);
    b?.assign(tensor(pair.b, { device, shape: b.shape }));
    realizeNow([a, b].filter((t) => t !== undefined));
    pairs.delete(name);
  }
  return adapter;
}

function fits(
  model: AdaptableModel,
  targets: readonly string[] | string,
  names: readonly string[],
  exclude?: TargetOptions["exclude"],
): boolean {
  const chosen = [...matchLayers(model, { targets, ...(exclude !== undefined && { exclude }) }, false).keys()];
  return chosen.length === names.length && chosen.every((name) => names.includes(name));
}

/** The last parts of the names where they choose the same layers, else the names. */
function shortest(model: AdaptableModel, names: readonly string[]): readonly string[] {
  const suffixes = [...new Set(names.map((name) => name.slice(name.lastIndexOf(".") + 1)))].sort();
  return fits(model, suffixes, names) ? suffixes : names;
}
