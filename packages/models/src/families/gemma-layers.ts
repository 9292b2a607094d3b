import type { ActivationName } from "../activation.js";
import type { PerLayerBranchOptions, PerLayerOptions } from "../decoder/per-layer-inputs.js";
import { rmsNorm } from "./standard.js";

/** What per-layer embeddings are read of. */
interface PerLayerConfig {
  readonly hidden_size_per_layer_input: number;
  readonly vocab_size_per_layer_input: number;
  readonly hidden_activation: ActivationName;
  readonly rms_norm_eps: number;
}

/** The decoder's part of per-layer embeddings, and each layer's; neither where they have no numbers. */
export function perLayerEmbeddings(config: PerLayerConfig): {
  readonly decoder: { readonly perLayer?: PerLayerOptions };
  readonly layer: { readonly perLayer?: PerLayerBranchOptions };
} {
  const { hidden_size_per_layer_input: size, vocab_size_per_layer_input: vocabSize, hidden_activation: activation } = config;
  if (size === 0) return { decoder: {}, layer: {} };
  const norm = rmsNorm(config);
  const tables = { embedding: "embed_tokens_per_layer", projection: "per_layer_model_projection", norm: "per_layer_projection_norm" };
  const [embedding, projection, normed] = Object.values(tables).map((name) => `model.${name}`) as [string, string, string];
  const names = { gate: "per_layer_input_gate", projection: "per_layer_projection", norm: "post_per_layer_input_norm" };
  return {
    decoder: { perLayer: { size, vocabSize, names: { embedding, projection, norm: normed }, norm } },
    layer: { perLayer: { size, activation, names, norm } },
  };
}

/** True for the keys and values of layers that see those of another: transformers 4 stored them, and nobody reads them. */
export function unreadKeysValues(isShared: (layer: number) => boolean): (name: string) => boolean {
  return (name) => {
    const [, layer] = /(?:^|\.)layers\.(\d+)\.self_attn\.(?:k_proj|v_proj|k_norm|v_norm)\./.exec(name) ?? [];
    return layer !== undefined && isShared(Number(layer));
  };
}

/**
 * The layer whose keys and values a layer sees instead of its own: the last of its type before the `shared` last ones. Null for a layer with
 * its own.
 */
export function sharedWith(layer: number, layers: number, shared: number, typeOf: (layer: number) => string): number | null {
  const first = layers - shared;
  if (shared === 0 || layer < first) return null;
  for (let before = first - 1; before >= 0; before--) if (typeOf(before) === typeOf(layer)) return before;
  return null;
}
