import type { Tensor } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import type { PeftFields } from "../peft/fields.js";
import { type AdaptableModel, type EmbeddingLayer, tokenEmbedding, type VirtualTokenSlots } from "../targeting/model.js";
import { defineMethod, type Method, onEach, type PlaceContext } from "./method.js";

/** What all methods with virtual tokens are told. */
export interface VirtualTokenOptions {
  /** Positions that they take in front of the text, at least 1 and fewer than the model's context (`num_virtual_tokens`). Default 20. */
  readonly virtualTokens: number;
}

/** Where virtual tokens go: the model itself. */
export interface VirtualTokenPlace {
  readonly slots: VirtualTokenSlots;
  readonly embedding: EmbeddingLayer;
  /** Entries of one of the model's token embeddings. */
  readonly width: number;
  readonly layers: number;
  /** Sizes of every layer's keys and values; null where layers differ, or keep something else. */
  readonly keys: { readonly kvHeads: number; readonly headDim: number } | null;
  /** What a token's embedding is multiplied by, where a prompt's is not. */
  readonly promptScale: number;
  /** Query heads; null where the model's config does not say. Written into files only. */
  readonly heads: number | null;
}

/** What stands behind virtual tokens while they are trained: an encoder, or the values themselves. */
export interface VirtualTokenSource {
  /** By their names in PEFT, without the adapter's. */
  readonly parameters: Readonly<Record<string, Tensor>>;
  /** What enters the model, [virtualTokens, …]; with the encoder's dropout while `isTraining`. Lazy. */
  values(isTraining: boolean): Tensor;
}

/** The model's slots and sizes. Throws AdapterError for a model that takes no virtual tokens. */
export function virtualTokenPlace(model: AdaptableModel): VirtualTokenPlace {
  const { virtualTokens: slots, cacheShape: keys = null, promptScale = 1, blocks = [] } = model;
  if (!slots) throw new AdapterError("The model has no place for virtual tokens. Use a method that goes on layers, for instance lora.");
  const [, embedding] = tokenEmbedding(model);
  const { config = {} } = model as { readonly config?: { readonly num_attention_heads?: unknown; readonly n_head?: unknown } };
  const heads = config.num_attention_heads ?? config.n_head;
  const width = embedding.weight.sizeAt(1);
  const layers = keys?.layers ?? blocks.length;
  return { slots, embedding, width, layers, keys, promptScale, heads: typeof heads === "number" ? heads : null };
}

/** The number of virtual tokens with its default. Throws AdapterError when it is none or leaves no room for text. */
export function virtualTokenCount(given: number | undefined, { contextLength = Number.POSITIVE_INFINITY }: AdaptableModel): number {
  const count = given ?? 20;
  if (!Number.isInteger(count) || count < 1)
    throw new AdapterError(`virtualTokens is ${count}. It is a whole number of at least 1; 10 to 100 are usual.`, ["virtualTokens"]);
  if (count >= contextLength)
    throw new AdapterError(
      `virtualTokens is ${count}, and the model sees ${contextLength} positions, of which text needs some. Use fewer virtual tokens.`,
      ["virtualTokens"],
    );
  return count;
}

/** Throws AdapterError unless the size is a whole number of at least 1. */
export function checkSize(name: string, size: number): void {
  if (!Number.isInteger(size) || size < 1)
    throw new AdapterError(`${name} is ${size}. It is a whole number of at least 1; the model's width is usual.`, [name]);
}

/** The method's own part: its options, the values' source, the shape of a file's table, and how the values enter the model. */
interface VirtualTokenMethod<Options extends VirtualTokenOptions> extends Pick<Method<Options, VirtualTokenPlace>, "options" | "toPeft"> {
  readonly fromPeft: (fields: PeftFields) => Partial<Options> | null;
  /** What is trained. Where `isLoaded`, the values themselves: files do not hold the encoder. */
  readonly source: (place: VirtualTokenPlace, options: Options, context: PlaceContext) => VirtualTokenSource;
  /** Into which slot the values go. */
  readonly enable: (place: VirtualTokenPlace, options: Options, values: () => Tensor) => () => () => void;
}

/** A method whose place is the model itself and whose file holds `prompt_embeddings`, as PEFT's prompt methods have it. */
export function virtualTokenMethod<Options extends VirtualTokenOptions>(
  name: string,
  { options, toPeft, fromPeft, source, enable }: VirtualTokenMethod<Options>,
): Method<Options, VirtualTokenPlace> {
  return defineMethod(name, {
    options,
    places: (model) => new Map([["", virtualTokenPlace(model)]]),
    attach: onEach((place, chosen, context) => {
      const { parameters, values } = source(place, chosen, context);
      return {
        parameters,
        saved: () => ({ prompt_embeddings: values(false) }),
        enable: enable(place, chosen, () => values(place.embedding.isTraining)),
      };
    }),
    fileName: (_place, key) => key,
    unmergeable:
      "virtual tokens stand in front of the text and are no part of any weight. Keep the adapter beside the model, and leave room for its positions in the context.",
    toPeft,
    fromPeft,
  });
}

/** Virtual tokens without an encoder: the table itself is trained. */
export function plainSource(table: Tensor): VirtualTokenSource {
  return { parameters: { prompt_embeddings: table }, values: () => table };
}

/** `enable` of what goes into a slot. Throws AdapterError, when called, where another adapter is in it. */
export function occupying<Slot extends "prefix" | "prompt">(
  slots: VirtualTokenSlots,
  slot: Slot,
  content: NonNullable<VirtualTokenSlots[Slot]>,
): () => () => void {
  return () => {
    if (slots[slot] !== null)
      throw new AdapterError(
        `The model has a ${slot} of another adapter already, and there is one place for it. disable() that one first.`,
      );
    slots[slot] = content;
    return () => {
      if (slots[slot] === content) slots[slot] = null;
    };
  };
}

/** The fields of PEFT's PromptLearningConfig. `tokenDim` and `heads` are those of what is stored. */
export function virtualTokensToPeft(
  { virtualTokens }: VirtualTokenOptions,
  { layers }: VirtualTokenPlace,
  tokenDim: number,
  heads: number | null,
): Readonly<Record<string, unknown>> {
  return {
    modules_to_save: null,
    num_attention_heads: heads,
    num_layers: layers,
    num_transformer_submodules: 1,
    num_virtual_tokens: virtualTokens,
    token_dim: tokenDim,
  };
}

/** Takes the fields of PromptLearningConfig. Throws AdapterError when the number of virtual tokens is missing. */
export function virtualTokensFromPeft(fields: PeftFields): VirtualTokenOptions {
  // The model's sizes follow from the model, and the table's shape is checked against them.
  fields.pass("peft_type", "token_dim", "num_attention_heads", "num_layers", "runtime_config");
  // 2 is for encoder-decoder models and stays, to be refused.
  if (fields.peek("num_transformer_submodules") === 1) fields.pass("num_transformer_submodules");
  const virtualTokens = fields.takeNumber("num_virtual_tokens", Number.NaN);
  if (Number.isNaN(virtualTokens))
    throw new AdapterError(`${fields.file}: num_virtual_tokens is missing. Say how many virtual tokens the adapter has.`, [
      "num_virtual_tokens",
    ]);
  return { virtualTokens };
}

/** The one place among a method's places. */
export function onlyPlace(places: ReadonlyMap<string, VirtualTokenPlace>): VirtualTokenPlace {
  for (const place of places.values()) return place;
  throw new AdapterError("The adapter has no place on a model. Make it with applyAdapter or loadAdapter.");
}
