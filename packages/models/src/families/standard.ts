import { type AttentionOptions, attention, type QueryKeyNorm } from "../decoder/attention.js";
import type { DecoderOptions } from "../decoder/decoder.js";
import { type FeedForward, type FeedForwardOptions, feedForward } from "../decoder/feed-forward.js";
import type { LayerOptions, NamedPart } from "../decoder/layer.js";
import type { Mixer } from "../decoder/mixer.js";
import type { NormOptions } from "../decoder/norm.js";
import type { QwenWindows, Sizes, Windows } from "./fields.js";
import type { GgufKey } from "./gguf/description.js";
import { windowPerLayer } from "./gguf/windows.js";

/** The fields that say an attention's sizes. */
type HeadSizes = Pick<Sizes, "hidden_size" | "num_attention_heads" | "num_key_value_heads" | "head_dim">;

/** A type for each layer, where the file says them. */
export function typePerLayer(config: {
  readonly layer_types: readonly string[] | null;
  readonly num_hidden_layers: number;
}): string | null {
  const { layer_types: types, num_hidden_layers: layers } = config;
  return types && types.length !== layers ? `"layer_types" has ${types.length} entries for ${layers} layers` : null;
}

/** Heads fit each other and the width. */
export const headRules: readonly ((config: HeadSizes) => string | null)[] = [
  ({ num_attention_heads: heads, num_key_value_heads: kvHeads }) =>
    kvHeads === null || heads % kvHeads === 0
      ? null
      : `"num_attention_heads" ${heads} is not a multiple of "num_key_value_heads" ${kvHeads}`,
  ({ head_dim: given, hidden_size: width, num_attention_heads: heads }) =>
    given === null && width % heads !== 0 ? `"hidden_size" ${width} is not a multiple of "num_attention_heads" ${heads}` : null,
];

/** Layers are as many as their types, where a file lists these. */
export function layerTypeRule({
  num_hidden_layers: layers,
  layer_types: types,
}: Pick<Sizes, "num_hidden_layers"> & { readonly layer_types: readonly string[] | null }): string | null {
  return types === null || types.length === layers ? null : `"layer_types" has ${types.length} entries for ${layers} layers`;
}

/** True for a layer with a window: by `layer_types` or, where the file has none, where `isSliding` says so. */
export function slides({ layer_types: types }: Windows, layer: number, isSliding: (layer: number) => boolean): boolean {
  return types ? types[layer] === "sliding_attention" : isSliding(layer);
}

/** How many tokens a layer sees; null for all. */
export function windowOf(config: Windows, layer: number, isSliding: (layer: number) => boolean): number | null {
  return slides(config, layer, isSliding) ? config.sliding_window : null;
}

/** The same for Qwen's models. */
export function qwenWindowOf({ use_sliding_window: has, max_window_layers: first, ...config }: QwenWindows, layer: number): number | null {
  return has ? windowOf(config, layer, () => layer >= first) : null;
}

/** They in a GGUF file. llama.cpp sees all tokens whatever the window is: the keys are ours. */
export const qwenWindowKeys: GgufKey<QwenWindows & Pick<Sizes, "num_hidden_layers">> = windowPerLayer(
  (config, layer) => qwenWindowOf(config, layer) !== null,
  { use_sliding_window: true },
);

export function headDimOf({ head_dim: given, hidden_size: width, num_attention_heads: heads }: HeadSizes): number {
  return given ?? width / heads;
}

/** Attention as most families have it: `self_attn` with q_proj, k_proj, v_proj and o_proj. */
export function selfAttention(config: HeadSizes, options: Partial<AttentionOptions> & Pick<AttentionOptions, "rope">): NamedPart<Mixer> {
  const { num_attention_heads: heads, num_key_value_heads: kvHeads } = config;
  const names = { q: "q_proj", k: "k_proj", v: "v_proj", out: "o_proj" };
  return {
    name: "self_attn",
    part: attention({ heads, kvHeads: kvHeads ?? heads, headDim: headDimOf(config), names, ...options }),
  };
}

/** The gated feed-forward layer of most families: `mlp` with gate_proj, up_proj and down_proj. */
export function gatedMlp(
  config: Pick<Sizes, "intermediate_size" | "hidden_act">,
  options: Partial<FeedForwardOptions> = {},
): NamedPart<FeedForward> {
  const { intermediate_size: inner, hidden_act: activation } = config;
  const names = { gate: "gate_proj", up: "up_proj", down: "down_proj" };
  return { name: "mlp", part: feedForward({ inner, activation, names, ...options }) };
}

/** Norms in front of both sublayers, under the names of most families. */
export const normsInFront = { beforeMixer: "input_layernorm", beforeFeedForward: "post_attention_layernorm" } as const;

/** Norms around both sublayers, under the names of Gemma. */
export const normsAround = {
  beforeMixer: "input_layernorm",
  afterMixer: "post_attention_layernorm",
  beforeFeedForward: "pre_feedforward_layernorm",
  afterFeedForward: "post_feedforward_layernorm",
} as const;

/** Norms behind both sublayers, under the names of OLMo 2. */
export const normsBehind = { afterMixer: "post_attention_layernorm", afterFeedForward: "post_feedforward_layernorm" } as const;

/** Root mean square norms, with a weight. */
export function rmsNorm({ rms_norm_eps: eps }: { readonly rms_norm_eps: number }): NormOptions {
  return { kind: "rms", eps };
}

/** Layer norms with weight and bias. */
export function layerNorm({ layer_norm_eps: eps }: { readonly layer_norm_eps: number }): NormOptions {
  return { kind: "layer", eps, bias: true };
}

/** Of queries and keys, under the names of most families. */
export function queryKeyNorm(norm: NormOptions, over: QueryKeyNorm["over"]): QueryKeyNorm {
  return { q: "q_norm", k: "k_norm", norm, over };
}

/** The same bias for all projections of attention. */
export function everyBias(has: boolean): NonNullable<AttentionOptions["bias"]> {
  return { q: has, k: has, v: has, out: has };
}

/** A decoder under the names of most families: `model.embed_tokens`, `model.layers`, `model.norm`, `lm_head`. */
export function decoderNamed(
  config: Pick<Sizes, "vocab_size" | "hidden_size" | "num_hidden_layers" | "tie_word_embeddings" | "max_position_embeddings">,
  norm: NormOptions,
  layer: (index: number) => LayerOptions,
  more: { readonly [part in "embedding" | "norm" | "head"]?: Partial<DecoderOptions[part]> } & { readonly contextLength?: number } = {},
): DecoderOptions {
  const { vocab_size: vocabSize, hidden_size: width, num_hidden_layers: layers, tie_word_embeddings: isTied } = config;
  return {
    vocabSize,
    width,
    contextLength: more.contextLength ?? config.max_position_embeddings,
    embedding: { name: "model.embed_tokens", ...more.embedding },
    layers: { name: "model.layers", count: layers, at: layer },
    norm: { name: "model.norm", options: norm, ...more.norm },
    head: { name: "lm_head", isTied, ...more.head },
  };
}

/** True for tensors of the `more` layers behind a model's own, which predict further tokens. */
export function behindLayers(own: number, more: number): (name: string) => boolean {
  return (name) => {
    const [, layer = -1] = /(?:^|\.)layers\.(\d+)\./.exec(name) ?? [];
    return Number(layer) >= own && Number(layer) < own + more;
  };
}
