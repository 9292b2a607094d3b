import type { Tensor } from "@lowrank/tensor";
import { type ExpertPlace, formerTargets, translated } from "../targeting/experts.js";
import { byPattern, outputLayers } from "../targeting/match.js";
import { type AdaptableModel, denseLayers } from "../targeting/model.js";
import { initNamed } from "./init/table.js";
import type { LoraOptions } from "./lora.js";
import { type Attachment, type PlaceContext, wrapping } from "./method.js";
import { scalingOf } from "./pair.js";
import { PairValues } from "./pair-values.js";

/**
 * A pair for each expert, as PEFT stores them: A [experts · rank, in], one below the other, and B [out, rank · experts] with the expert running
 * fastest. An expert's rows get s B_e A_e x, and nobody else computes with its pair.
 */
export function expertPairs({ projection, path }: ExpertPlace, options: LoraOptions, context: PlaceContext): Attachment {
  const { experts, isTransposed, weight } = projection;
  const [, first = 0, second = 0] = weight.shape;
  const [outFeatures, inFeatures] = isTransposed ? [second, first] : [first, second];
  const rank = byPattern(options.rankPattern, path, options.rank);
  const layer = { weight, inFeatures, outFeatures, isTransposed: false, isTraining: false };
  const values = new PairValues(layer, initNamed(options.init), scalingOf(options, path, rank), rank * experts, context);
  const { a, b, scaling } = values;
  /** [experts, rank, in]. */
  const down = (): Tensor => a.reshape([experts, rank, inFeatures]);
  /** [experts, rank, out]. */
  const up = (): Tensor => b.reshape([outFeatures, rank, experts]).permute([2, 1, 0]);
  const delta = (): Tensor => (isTransposed ? down().t().matmul(up()) : up().t().matmul(down())).mul(scaling);
  return {
    parameters: { "lora_A.weight": a, "lora_B.weight": b },
    enable: wrapping(projection, (x, next) => next(x).add(projection.product(projection.product(x, down().t()), up()).mul(scaling))),
    merge: () => {
      const { weight } = projection;
      return [{ weight, value: weight.cast("f32").add(delta()), restore: (merged) => merged.sub(delta()) }];
    },
  };
}

/**
 * The options with what they say of experts' layers of old said of the weights that these are now, as PEFT writes them; "all-linear" names them
 * all. A weight that is several layers in one has as many times the rank and alpha, so that its scaling is the others'.
 */
export function withoutFormer(options: LoraOptions, model: AdaptableModel): LoraOptions {
  const former = formerTargets(model);
  const { targets, targetParameters, rank, alpha } = options;
  const isAll = typeof targets === "string" && targets.toLowerCase() === "all-linear";
  if (former.length === 0 || !(isAll || Array.isArray(targets))) return options;
  const last = (name: string): string => name.slice(name.lastIndexOf(".") + 1);
  const every = (): string[] => [...[...denseLayers(model).keys()].map(last), ...former.flatMap(({ names }) => names)];
  const named = isAll ? [...new Set(every())].filter((name) => !outputLayers.has(name)) : (targets as readonly string[]);
  const now = translated(named, former);
  if (now.parameters.length === 0) return options;
  const patterns = (value: number): Record<string, number> =>
    Object.fromEntries([...now.factors].map(([parameter, factor]) => [`.*\\.${parameter}`, value * factor]));
  return {
    ...options,
    targets: now.targets,
    targetParameters: [...new Set([...targetParameters, ...now.parameters])],
    rankPattern: { ...options.rankPattern, ...patterns(rank) },
    alphaPattern: { ...options.alphaPattern, ...patterns(alpha) },
  };
}
