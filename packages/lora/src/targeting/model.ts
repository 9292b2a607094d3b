import { type Device, Tensor } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";

/** What stands around a module's forward: it may change the input, the result, or both. */
export type Wrapper = (x: Tensor, next: (x: Tensor) => Tensor) => Tensor;

/** A part of a model that lets an adapter in. `nn.Module` of @lowrank/autograd is one. */
export interface AdaptableModule {
  /** True while dropout is on. */
  readonly isTraining: boolean;
  /** Runs the forward through `wrapper` from now on; the function returned takes it out again. */
  use(wrapper: Wrapper): () => void;
  /** Computes with another tensor in a parameter's place; the function returned puts the module's own back. */
  replace(key: string, value: Tensor): () => void;
}

/** A dense layer: y = x Wᵀ + b with W [out, in], or y = x W + b with W [in, out] where `isTransposed` (GPT-2's Conv1D). */
export interface DenseLayer extends AdaptableModule {
  readonly weight: Tensor;
  readonly bias: Tensor | null;
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly isTransposed: boolean;
  /** The projections that it computes in one, in order, all its outputs together: each `size` of them from `start` on, in each `period`, or once. */
  readonly fusedParts?: readonly FusedPart[];
}

export interface FusedPart {
  /** What it is called below the layer's name. */
  readonly name: string;
  readonly start: number;
  readonly size: number;
  readonly period?: number;
}

/** A table of vectors: row ids of `weight` [count, width]. */
export interface EmbeddingLayer extends AdaptableModule {
  readonly weight: Tensor;
}

/** Where prefix and prompt methods enter a model. Positions that they take are in front of the text's. */
export interface VirtualTokenSlots {
  /** Keys and values in front of each layer's own, [1, kvHeads, length, headDim]; asked for once a forward pass. */
  prefix: { readonly length: number; layers(): readonly { readonly keys: Tensor; readonly values: Tensor }[] } | null;
  /** Embeddings [length, width] in front of the text's own. */
  prompt: { readonly length: number; embeddings(): Tensor } | null;
  /** Positions of the context that both take. */
  readonly length: number;
}

/**
 * The names of a layer's parts among the model's modules: attention, or what mixes tokens in its place, the feed-forward, and the norms in
 * front of them, which read the residual stream. Null where there is none: a sublayer without a norm in front reads the stream itself.
 */
export interface BlockNames {
  readonly name: string;
  readonly attentionNorm: string | null;
  readonly attention: string;
  readonly mlpNorm: string | null;
  readonly mlp: string | null;
}

/** All that an adapter needs of a model: its parts and parameters by the checkpoint's names, and where virtual tokens enter, if it has that. */
export interface AdaptableModel {
  namedModules(): ReadonlyMap<string, AdaptableModule>;
  namedParameters(): ReadonlyMap<string, Tensor>;
  readonly virtualTokens?: VirtualTokenSlots;
  /** Sizes of a layer's keys and values; null where layers differ. */
  readonly cacheShape?: { readonly layers: number; readonly kvHeads: number; readonly headDim: number } | null;
  /** What a token's embedding is multiplied by before it stands behind a prompt; 1 when absent. */
  readonly promptScale?: number;
  /** Positions that the model can look at. */
  readonly contextLength?: number;
  /** Its transformer blocks, first to last; what bottleneck adapters go on. */
  readonly blocks?: readonly BlockNames[];
  /** What names below begin with, where the model is a part of a larger one: "model.language_model.". */
  readonly wholePath?: string | null;
  /** What its dense weights were quantized to when it was loaded; null where they were not. */
  readonly quantization?: string | null;
  /** The numbers of a parameter that was quantized as they were before, in its own shape; null where nobody has them. */
  storedWeight?(parameter: Tensor): Promise<Float32Array> | null;
  /** Dense layers, by the last parts of their names, that adapters go on where PEFT has none for the family and nobody says which. */
  readonly usualTargets?: readonly string[];
}

/** True for a dense layer, by its shape: no class of another package is asked for. */
export function isDense(module: AdaptableModule): module is DenseLayer {
  const layer = module as Partial<DenseLayer>;
  return layer.weight instanceof Tensor && typeof layer.inFeatures === "number" && typeof layer.outFeatures === "number";
}

/** True for a router of experts, which is adapted only where its weight is named: transformers has it as a parameter and not as a layer. */
export function isRouter(layer: DenseLayer): boolean {
  return (layer as { readonly isRouter?: unknown }).isRouter === true;
}

/** The model's dense layers by name, without routers. */
export function denseLayers(model: AdaptableModel): Map<string, DenseLayer> {
  const layers = new Map<string, DenseLayer>();
  for (const [name, module] of model.namedModules()) if (isDense(module) && !isRouter(module)) layers.set(name, module);
  return layers;
}

/** True for a token or position table, by its shape. */
export function isEmbedding(module: AdaptableModule): module is EmbeddingLayer {
  const layer = module as Partial<DenseLayer>;
  return layer.weight instanceof Tensor && layer.weight.rank === 2 && layer.inFeatures === undefined;
}

/** The model's token embedding, with its name: the first table. Throws AdapterError for a model without one. */
export function tokenEmbedding(model: AdaptableModel): readonly [name: string, module: EmbeddingLayer] {
  for (const [name, module] of model.namedModules()) if (isEmbedding(module)) return [name, module];
  throw new AdapterError(
    "The model has no token embedding, so a prompt cannot be put in front of its text. Use a method that goes on layers.",
  );
}

/** The device that holds the model's parameters. Throws TypeError for a model without any. */
export function deviceOf(model: AdaptableModel): Device {
  for (const parameter of model.namedParameters().values()) return parameter.device;
  throw new TypeError("The model has no parameters. Pass the model itself, not a part without weights.");
}

/** The family that a Hugging Face config names ("llama", "gpt2"), where the model carries one. */
export function modelType(model: AdaptableModel): string | null {
  const { config } = model as { config?: { model_type?: unknown; modelType?: unknown } };
  const type = config?.modelType ?? config?.model_type;
  return typeof type === "string" ? type : null;
}
