import { type Tensor, zeros } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import { targetsFor } from "../targeting/defaults.js";
import { type ExpertPlace, expertWeights, wrappedNames } from "../targeting/experts.js";
import { matchAmong, type TargetOptions } from "../targeting/match.js";
import { type AdaptableModel, type DenseLayer, type EmbeddingLayer, isDense, isEmbedding, isRouter } from "../targeting/model.js";
import { type FusedPlace, LayerPart, partsOf } from "../targeting/parts.js";
import { embeddingPair } from "./embedding.js";
import { initializeEva } from "./eva.js";
import { expertPairs, withoutFormer } from "./experts.js";
import { type EvaOptions, evaOptions } from "./init/eva-options.js";
import { type InitName, initNamed } from "./init/table.js";
import { type Attachment, defineMethod, type MergedWeight, type Method, type PlaceContext, wrapping } from "./method.js";
import { asPlain, lowRankPair } from "./pair.js";
import { partsAttachment } from "./parts.js";
import { loraFromPeft, loraToPeft } from "./peft-lora.js";
import { checkSizes } from "./sizes.js";
import { checkTraining, type LoraTrainingOptions, loraTraining } from "./training.js";

/** How a low-rank pair is set up. Names in parentheses are PEFT's. */
export interface LoraOptions extends TargetOptions, LoraTrainingOptions {
  /** Inner size of the pair (`r`), at least 1. Default 8. */
  readonly rank: number;
  /** Numerator of the scaling (`lora_alpha`). Default 8. */
  readonly alpha: number;
  /** Share of the bypass's input that is zeroed while training (`lora_dropout`), in [0, 1). Default 0. */
  readonly dropout: number;
  /** Scales by alpha / √rank instead of alpha / rank (`use_rslora`; Kalajdzievski 2023). */
  readonly rslora: boolean;
  /**
   * First values (`init_lora_weights`): A "kaiming" uniform in ±1/√in (or true) or "gaussian" with deviation 1/rank as the paper, and B 0;
   * "default", a dense layer's own values for both (or false); "orthogonal"; out of the weights "pissa", "pissa_niter_N" (faster, less exact)
   * and "olora", and out of what quantization took from them "loftq", which need `await adapter.initialize()`; out of data "eva", which needs `await adapter.initialize({ runs })`.
   */
  readonly init: InitName;
  /** How EVA looks at data (`eva_config`). */
  readonly eva: Partial<EvaOptions>;
  /** Another rank for modules whose name ends in a pattern (`rank_pattern`). */
  readonly rankPattern: Readonly<Record<string, number>>;
  /** Another alpha likewise (`alpha_pattern`). */
  readonly alphaPattern: Readonly<Record<string, number>>;
  /** A trained bias in B, scaled as B is (`lora_bias`). Default false. */
  readonly loraBias: boolean;
  /** Weights by the ends of their names, adapted as they are stored: W + s B A with A [rank, shape 1] (`target_parameters`). */
  readonly targetParameters: readonly string[];
}

/** Defaults and checks that all methods with a low-rank pair share. Throws AdapterError. */
export function loraOptions(given: Partial<LoraOptions>): LoraOptions {
  const {
    rank = 8,
    alpha = 8,
    dropout = 0,
    rslora = false,
    rankPattern = {},
    alphaPattern = {},
    loraBias = false,
    targetParameters = [],
    init: asked = "kaiming",
    eva,
    freezeA = false,
    loraPlusRatio,
    loraPlusEmbeddingRatio,
    ...targets
  } = given;
  checkSizes({ rank, alpha, dropout, rankPattern, alphaPattern });
  const init = typeof asked === "boolean" ? (asked ? "kaiming" : "default") : asked;
  const { fromWeight, fromResidual, needsData } = initNamed(init);
  if (loraBias && init !== "kaiming" && init !== "default")
    throw new AdapterError(`loraBias goes with init "kaiming" or "default", as in PEFT, and not with "${init}". Leave one of them out.`, [
      "loraBias",
      "init",
    ]);
  if (targetParameters.length > 0 && (fromWeight || fromResidual || needsData))
    throw new AdapterError(`init "${init}" is for layers, not for targetParameters. Name the layers in targets instead.`, [
      "targetParameters",
      "init",
    ]);
  if (targetParameters.length > 0 && (dropout > 0 || loraBias)) {
    throw new AdapterError(
      "targetParameters change weights, so they go with neither dropout nor loraBias. Name the layers in targets instead.",
      ["targetParameters"],
    );
  }
  const training = {
    freezeA,
    ...(loraPlusRatio !== undefined && { loraPlusRatio }),
    ...(loraPlusEmbeddingRatio !== undefined && { loraPlusEmbeddingRatio }),
  };
  checkTraining(training);
  const values = { init, eva: evaOptions(eva) };
  return { ...targets, rank, alpha, dropout, rslora, ...values, rankPattern, alphaPattern, loraBias, targetParameters, ...training };
}

/** A matrix [out, in] in the layout of the layer's own weight, and back. */
export function inLayout(layer: DenseLayer, matrix: Tensor): Tensor {
  return layer.isTransposed ? matrix.t() : matrix;
}

/** What LoRA goes on: a dense layer or some parts of a fused one, an embedding, or a weight by its own name, of a dense layer or of experts. */
export type LoraPlace = DenseLayer | FusedPlace | EmbeddingLayer | NamedWeight | ExpertPlace;

/** A weight of `targetParameters`. */
export interface NamedWeight {
  readonly layer: DenseLayer;
  /** The weight's own name, which patterns look at. */
  readonly path: string;
}

/** Layers, embeddings and weights that the options choose. Throws AdapterError. */
export function loraPlaces(model: AdaptableModel, options: LoraOptions, isStrict: boolean): Map<string, LoraPlace> {
  const { targets, targetParameters } = options;
  const places = new Map<string, LoraPlace>();
  const isNone = Array.isArray(targets) && targets.length === 0;
  if (targetParameters.length === 0 || (targets !== undefined && !isNone)) {
    const isAll = typeof targets === "string" && targets.toLowerCase() === "all-linear";
    const candidates = new Map<string, LoraPlace>();
    const listed = Array.isArray(targets) ? (targets as readonly string[]) : [];
    for (const [name, module] of model.namedModules()) {
      if (isDense(module)) {
        if (isRouter(module)) continue;
        candidates.set(name, module);
        for (const [path, part] of partsOf(name, module, listed)) candidates.set(path, part);
      } else if (!isAll && isEmbedding(module)) candidates.set(name, module);
    }
    for (const [name, place] of matchAmong(candidates, targets ?? targetsFor(model), options, isStrict, "dense layer")) {
      if (place instanceof LayerPart) addPart(places, name, place);
      else places.set(name, place);
    }
  }
  addWeights(places, model, targetParameters, isStrict || places.size === 0);
  return places;
}

/** The weights that `targetParameters` name, those of experts under the names of PEFT's wrappers. */
function addWeights(places: Map<string, LoraPlace>, model: AdaptableModel, targetParameters: readonly string[], isStrict: boolean): void {
  const unused = new Set(targetParameters);
  const isNamed = (path: string): boolean => {
    const entries = targetParameters.filter((end) => path === end || path.endsWith(`.${end}`));
    for (const entry of entries) unused.delete(entry);
    return entries.length > 0;
  };
  for (const [name, layer] of model.namedModules()) {
    const path = `${name}.weight`;
    if (!isDense(layer) || !isNamed(path)) continue;
    if (places.has(name)) throw new AdapterError(`${path} is in targetParameters and its layer in targets. Keep one of them.`, [path]);
    places.set(name, { layer, path });
  }
  const held = new Map<string, ExpertPlace[]>();
  for (const [path, { holder, projection }] of expertWeights(model))
    if (isNamed(path)) held.set(holder, [...(held.get(holder) ?? []), { projection, path }]);
  for (const [holder, own] of held)
    for (const [i, name] of wrappedNames(holder, own.length).entries()) places.set(name, own[i] as ExpertPlace);
  if (isStrict && unused.size > 0)
    throw new AdapterError(`targetParameters ${[...unused].join(", ")} name no weight of a dense layer or of experts. Check the names.`, [
      ...unused,
    ]);
}

/** Parts of one layer are one place, under the layer's name. Throws AdapterError where the whole layer is a place as well. */
function addPart(places: Map<string, LoraPlace>, path: string, part: LayerPart): void {
  const name = path.slice(0, -part.key.length - 1);
  const place = places.get(name);
  if (place && !("parts" in place)) throw new AdapterError(`targets name ${name} and its part ${path}. Keep one of them.`, [name, path]);
  places.set(name, { layer: part.whole, parts: new Map([...(place?.parts ?? []), [path, part]]) });
}

/** The pair on one weight as it is stored [m, k]: A [rank, k], B [m, rank], W + s B A. */
function weightPair({ layer, path }: NamedWeight, options: LoraOptions, context: PlaceContext): Attachment {
  // As of a layer whose weight is [out, in]; for GPT-2's [in, out] the roles of in and out change places.
  const { weight } = layer;
  const [outFeatures = 0, inFeatures = 0] = weight.shape;
  const pair = lowRankPair({ weight, inFeatures, outFeatures, isTransposed: false, isTraining: false }, options, {
    ...context,
    name: path,
  });
  const { a, b, scaling, delta } = pair;
  return pair.attachment({
    enable: wrapping(layer, (x, next) =>
      next(x).add((layer.isTransposed ? x.matmul(b).matmul(a) : x.matmul(a.t()).matmul(b.t())).mul(scaling)),
    ),
    merge: () => [{ weight: layer.weight, value: layer.weight.add(delta()), restore: (merged) => merged.sub(delta()) }],
  });
}

/** `lora_B.bias` where it is asked for: 0, or with init "default" a dense layer's own, uniform in ±1/√rank. */
function biasOf(layer: DenseLayer, { loraBias, init }: LoraOptions, { generator }: PlaceContext, rank: number): Tensor | null {
  if (!loraBias) return null;
  if (init !== "default") return zeros([layer.outFeatures], { device: generator.device });
  const bound = 1 / Math.sqrt(rank);
  return generator
    .uniform([layer.outFeatures])
    .mul(2 * bound)
    .sub(bound);
}

/**
 * True where PEFT would take something else out of the base when it loads the file: its OLoRA takes Conv1D's weight as it is stored, and the
 * directions from which "pissa_niter_N" starts are random there.
 */
export function needsPlain({ init }: LoraOptions, places: ReadonlyMap<string, LoraPlace>): boolean {
  const isConv = (place: LoraPlace): boolean => "isTransposed" in place && place.isTransposed;
  return (init === "olora" && [...places.values()].some(isConv)) || String(init).startsWith("pissa_niter_");
}

/** `attach` of a method with a low-rank pair: `onDense` for dense layers; embeddings and named weights are alike for all. */
export function attachPairs(
  onDense: (layer: DenseLayer, options: LoraOptions, context: PlaceContext) => Attachment,
  hasMagnitude: boolean,
): Method<LoraOptions, LoraPlace>["attach"] {
  return (places, options, context) => {
    const attachments = new Map<string, Attachment>();
    for (const [name, place] of places) {
      const here = { ...context, name };
      if ("parts" in place) {
        if (hasMagnitude)
          throw new AdapterError(`${name}: DoRA's norms are of whole layers, not of parts. Target the layer itself, or use method lora.`, [
            name,
          ]);
        attachments.set(
          name,
          partsAttachment(place, options, (part, path) => onDense(part, options, { ...context, name: path })),
        );
      } else if ("projection" in place) {
        if (hasMagnitude)
          throw new AdapterError(`${place.path}: DoRA's norms are of layers, not of experts' weights. Use method lora.`, [place.path]);
        attachments.set(name, expertPairs(place, options, here));
      } else if ("path" in place) attachments.set(name, weightPair(place, options, here));
      else if (isDense(place)) attachments.set(name, onDense(place, options, here));
      else attachments.set(name, embeddingPair(place, options, here, hasMagnitude));
    }
    return attachments;
  };
}

/** LoRA (Hu et al. 2021, eq. 3): h = W0 x + (alpha / r) B A x, with W0 frozen, and A random and B zero at first (`init` has others). Merged: W = W0 + (alpha / r) B A. */
export const lora: Method<LoraOptions, LoraPlace> = defineMethod("lora", {
  options: (given, model) => withoutFormer(loraOptions(given), model),
  places: loraPlaces,
  riders: ["bias", "modulesToSave", "trainableTokens", "ensureWeightTying"],
  attach: attachPairs((layer, options, context) => {
    const pair = lowRankPair(layer, options, context);
    const bias = biasOf(layer, options, context, pair.a.shape[0] ?? 1);
    return pair.attachment({
      ...(bias && { more: { "lora_B.bias": bias } }),
      enable: pair.around(layer, (x, next) => {
        const adapted = next(x).add(pair.bypass(pair.input(x)));
        return bias ? adapted.add(bias.mul(pair.scaling)) : adapted;
      }),
      merge: () => {
        const { weight } = layer;
        const delta = (): Tensor => inLayout(layer, pair.delta());
        const merged: MergedWeight = { weight, value: weight.add(delta()), restore: (value) => value.sub(delta()) };
        if (!bias) return [merged];
        if (!layer.bias) {
          throw new AdapterError(
            `${context.name} has no bias that the adapter's own (lora_bias) could be merged into. Keep the adapter beside the model.`,
            [context.name],
          );
        }
        const scaled = (): Tensor => bias.mul(pair.scaling);
        return [merged, { weight: layer.bias, value: layer.bias.add(scaled()), restore: (value) => value.sub(scaled()) }];
      },
    });
  }, false),
  initialize: initializeEva,
  training: loraTraining,
  asPlain,
  needsPlain,
  toPeft: (options, places) => loraToPeft(options, places, { use_dora: false }),
  fromPeft: (fields) => loraFromPeft(fields, { use_dora: false }),
});
