import type { DecoderOptions } from "../decoder/decoder.js";
import { type FeedForward, feedForward } from "../decoder/feed-forward.js";
import type { NamedPart } from "../decoder/layer.js";
import { shortConv } from "../decoder/short-conv.js";
import { count, flag, positive } from "../schema.js";
import { type FieldsOf, flagOrNull, layerTypes, list, type RmsSizes, type RopeFields, rotary, sizes, withDefaults } from "./fields.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, selfAttention } from "./standard.js";

const usual = { vocab_size: 65536, num_attention_heads: 32, num_key_value_heads: 8, max_position_embeddings: 128000 };
const { rms_norm_eps: _eps, hidden_act: _activation, intermediate_size: _inner, ...own } = withDefaults(sizes, usual);

/** A model whose layers are attention or a gated short convolution, as LFM2's files name it. */
export interface ConvConfig extends Omit<RmsSizes, "rms_norm_eps" | "hidden_act" | "intermediate_size">, RopeFields {
  readonly norm_eps: number;
  readonly conv_L_cache: number;
  readonly conv_bias: boolean;
  readonly full_attn_idxs: readonly number[] | null;
  readonly layer_types: readonly ("full_attention" | "conv")[] | null;
  /** Counts before `tie_word_embeddings`. */
  readonly tie_embedding: boolean | null;
}

export const convFields: FieldsOf<ConvConfig> = {
  ...own,
  ...rotary,
  norm_eps: positive(1e-5),
  conv_L_cache: count(3),
  conv_bias: flag(false),
  full_attn_idxs: list<number>("a list of layer numbers", Number.isInteger),
  layer_types: layerTypes(["full_attention", "conv"]),
  tie_embedding: flagOrNull(),
  tie_word_embeddings: flag(true),
};

/** True for a layer with attention; where the file does not say, all have it. */
export function hasAttention(
  { layer_types: types, full_attn_idxs: full }: Pick<ConvConfig, "layer_types" | "full_attn_idxs">,
  layer: number,
): boolean {
  return types ? types[layer] === "full_attention" : (full?.includes(layer) ?? true);
}

/** Their gated feed-forward layer. */
export function convMlp(inner: number): NamedPart<FeedForward> {
  return { name: "feed_forward", part: feedForward({ inner, activation: "silu", names: { gate: "w1", up: "w3", down: "w2" } }) };
}

/** The decoder of such a model. `feedForward`: each layer's. */
export function convDecoder(given: ConvConfig, path: string, feedForwardOf: (layer: number) => NamedPart<FeedForward>): DecoderOptions {
  const config = { ...given, tie_word_embeddings: given.tie_embedding ?? given.tie_word_embeddings };
  const rope = readRope(config, path, { theta: 1e6 });
  const norm = { kind: "rms", eps: config.norm_eps } as const;
  const attention = selfAttention(config, {
    rope,
    names: { q: "q_proj", k: "k_proj", v: "v_proj", out: "out_proj" },
    queryKeyNorm: { q: "q_layernorm", k: "k_layernorm", norm, over: "head" },
  });
  const names = { in: "in_proj", conv: "conv", out: "out_proj" };
  const conv = { name: "conv", part: shortConv({ size: config.conv_L_cache, bias: config.conv_bias, names }) };
  return decoderNamed(
    config,
    norm,
    (layer) => ({
      mixer: hasAttention(config, layer) ? attention : conv,
      feedForward: feedForwardOf(layer),
      norm,
      norms: { beforeMixer: "operator_norm", beforeFeedForward: "ffn_norm" },
    }),
    { contextLength: contextOf(config, rope), norm: { name: "model.embedding_norm" } },
  );
}
