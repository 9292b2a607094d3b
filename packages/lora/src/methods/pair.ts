import { nn } from "@lowrank/autograd";
import { concat, type Tensor } from "@lowrank/tensor";
import { byPattern } from "../targeting/match.js";
import type { DenseLayer, Wrapper } from "../targeting/model.js";
import { initNamed } from "./init/table.js";
import type { LoraOptions } from "./lora.js";
import type { Attachment, PlaceContext } from "./method.js";
import { type PairLayer, PairValues } from "./pair-values.js";
import { gradientProjection } from "./training.js";

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
  /** scaling · B A, [out, in], less what the first values took out of the base. */
  delta(): Tensor;
  /** A and B of a plain pair with the same effect and scaling, of twice the rank where the first values took something out of the base. */
  plain(): { readonly a: Tensor; readonly b: Tensor };
  /** Its tensors over its life. */
  readonly values: PairValues;
  /** `enable` around a layer as the first values left it. */
  around(layer: DenseLayer, wrapper: Wrapper): () => () => void;
  /** The attachment of a method that trains the pair, and `more` with it. */
  attachment(own: Pick<Attachment, "enable" | "merge"> & { readonly more?: Readonly<Record<string, Tensor>> }): Attachment;
}

/** What B A is multiplied by on a layer whose pair has this rank. */
export function scalingOf(options: LoraOptions, name: string, rank: number): number {
  return byPattern(options.alphaPattern, name, options.alpha) / (options.rslora ? Math.sqrt(rank) : rank);
}

/** A and B for a layer with the first values of the options. */
export function lowRankPair(layer: PairLayer, options: LoraOptions, context: PlaceContext): LowRankPair {
  const { name, dropoutGenerator, warn } = context;
  const { inFeatures, outFeatures } = layer;
  const { freezeA } = options;
  const rank = byPattern(options.rankPattern, name, options.rank);
  const full = Math.min(inFeatures, outFeatures);
  if (rank > full)
    warn(`rank ${rank} on ${name} (${inFeatures} to ${outFeatures}) is above the full rank ${full}: it costs more and can learn no more.`);
  const init = initNamed(options.init);
  const values = new PairValues(layer, init, scalingOf(options, name, rank), rank, context);
  const projection = freezeA ? gradientProjection(values) : null;
  const plain = (): { readonly a: Tensor; readonly b: Tensor } => {
    values.check();
    const { a, b, start } = values;
    return start ? { a: concat([a, start.a], 0), b: concat([b, start.b.neg()], 1) } : { a, b };
  };
  const pair: LowRankPair = {
    get a() {
      return values.a;
    },
    get b() {
      return values.b;
    },
    get scaling() {
      return values.scaling;
    },
    values,
    plain,
    input: (x) => (layer.isTraining ? nn.dropout(x, options.dropout, dropoutGenerator) : x),
    bypass: (x) => x.matmul(values.a.t()).matmul(values.b.t()).mul(values.scaling),
    delta: () => {
      values.check();
      return values.delta();
    },
    around: (module, wrapper) => () => {
      // Only first values that wait for the base or change it stand around the layer themselves.
      const removers =
        init.fromWeight || init.needsData || init.fromResidual ? [module.use(values.base), module.use(wrapper)] : [module.use(wrapper)];
      return () => {
        for (const remove of removers.reverse()) remove();
      };
    },
    attachment: ({ more = {}, ...own }) => ({
      ...own,
      // EVA gives a layer other tensors, of another rank.
      get parameters() {
        return { ...(freezeA ? {} : { "lora_A.weight": values.a }), "lora_B.weight": values.b, ...more };
      },
      get constants() {
        return freezeA ? { "lora_A.weight": values.a } : {};
      },
      others: () => [...(values.start ? [values.start.a, values.start.b] : []), ...(projection?.tensors() ?? [])],
      saved: () => {
        // A file that is being read is compared with this before its values are complete.
        if (!context.isLoaded) values.check();
        return { "lora_A.weight": values.a, "lora_B.weight": values.b, ...more };
      },
      plain: () => {
        const { a, b } = plain();
        return { "lora_A.weight": a, "lora_B.weight": b, ...more };
      },
      initialize: async () => {
        await values.fromWeight();
        await projection?.prepare();
      },
      outline: () => {
        values.outline();
        projection?.outline();
      },
      ...(projection && { changeGradient: projection.change }),
      pair,
    }),
  };
  return pair;
}

/** The options of the same adapter as a plain pair, of twice the rank where the first values took something out of the base. */
export function asPlain(options: LoraOptions): LoraOptions {
  if (!initNamed(options.init).fromWeight) return { ...options, init: "kaiming" };
  const factor = options.rslora ? Math.SQRT2 : 2;
  const times = (values: Readonly<Record<string, number>>, by: number): Record<string, number> =>
    Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value * by]));
  return {
    ...options,
    init: "kaiming",
    rank: 2 * options.rank,
    alpha: factor * options.alpha,
    rankPattern: times(options.rankPattern, 2),
    alphaPattern: times(options.alphaPattern, factor),
  };
}
