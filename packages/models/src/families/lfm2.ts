import { feedForward } from "../decoder/feed-forward.js";
import { shortConv } from "../decoder/short-conv.js";
import { count, countOrNull, flag, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { flagOrNull, layerTypes, list, rotary, sizes } from "./fields.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, headRules, selfAttention, typePerLayer } from "./standard.js";

const { rms_norm_eps: _eps, hidden_act: _activation, intermediate_size: _inner, ...own } = sizes;

/** LFM2 (Liquid AI 2025): transformers' Lfm2ForCausalLM. */
export const lfm2: Family = defineFamily({
  className: "Lfm2ForCausalLM",
  fields: {
    ...own,
    ...rotary,
    norm_eps: positive(1e-5),
    intermediate_size: countOrNull(),
    block_ff_dim: countOrNull(),
    block_auto_adjust_ff_dim: flag(true),
    block_ffn_dim_multiplier: positive(1),
    block_multiple_of: count(256),
    conv_L_cache: count(3),
    conv_bias: flag(false),
    full_attn_idxs: list<number>("a list of layer numbers", Number.isInteger),
    layer_types: layerTypes(["full_attention", "conv"]),
    tie_embedding: flagOrNull(),
    tie_word_embeddings: flag(true),
  },
  rules: [...headRules, typePerLayer],
  prefixes: [["", "model."]],
  remarks: [
    ...["block_dim", "block_mlp_init_scale", "block_norm_eps", "block_out_init_scale", "block_use_swiglu", "block_use_xavier_init"],
    ...["conv_dim", "conv_dim_out", "conv_use_xavier_init", "use_pos_enc", "theta"],
  ],
  decoder: (given, path) => {
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
    const isAttention = (layer: number): boolean =>
      config.layer_types ? config.layer_types[layer] === "full_attention" : (config.full_attn_idxs?.includes(layer) ?? true);
    const inner = innerSize(config);
    return decoderNamed(
      config,
      norm,
      (layer) => ({
        mixer: isAttention(layer) ? attention : conv,
        feedForward: {
          name: "feed_forward",
          part: feedForward({ inner, activation: "silu", names: { gate: "w1", up: "w3", down: "w2" } }),
        },
        norm,
        norms: { beforeMixer: "operator_norm", beforeFeedForward: "ffn_norm" },
      }),
      { contextLength: contextOf(config, rope), norm: { name: "model.embedding_norm" } },
    );
  },
});

/** Two thirds of what the file says, times a factor, up to the next multiple. */
function innerSize(config: {
  readonly intermediate_size: number | null;
  readonly block_ff_dim: number | null;
  readonly block_auto_adjust_ff_dim: boolean;
  readonly block_ffn_dim_multiplier: number;
  readonly block_multiple_of: number;
}): number {
  const given = config.block_ff_dim ?? config.intermediate_size ?? 12288;
  if (!config.block_auto_adjust_ff_dim) return given;
  const scaled = Math.trunc(config.block_ffn_dim_multiplier * Math.trunc((2 * given) / 3));
  return config.block_multiple_of * Math.ceil(scaled / config.block_multiple_of);
}
