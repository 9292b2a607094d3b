import { largest } from "@lowrank/tensor";
import { feedForward } from "../decoder/feed-forward.js";
import { shortConv } from "../decoder/short-conv.js";
import { count, countOrNull, flag, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { flagOrNull, layerTypes, list, rotary, sizes } from "./fields.js";
import type { GgufKey } from "./gguf/description.js";
import { counted, headDim, measured, sizeKeys, vocabSize } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, queryKeyNorms, squeezed } from "./gguf/targets.js";
import { contextOf, type RotaryConfig, readRope } from "./rope.js";
import { decoderNamed, headRules, selfAttention, typePerLayer } from "./standard.js";

const { rms_norm_eps: _eps, hidden_act: _activation, intermediate_size: _inner, ...own } = sizes;

interface Layers {
  readonly layer_types: readonly string[] | null;
  readonly full_attn_idxs: readonly number[] | null;
}

function hasAttention({ layer_types: types, full_attn_idxs: full }: Layers, layer: number): boolean {
  return types ? types[layer] === "full_attention" : (full?.includes(layer) ?? true);
}

/** Which layers have attention, by their key-value heads, and the width of the feed-forward as it is. */
const layerKeys: GgufKey<
  Layers & Inner & { readonly num_hidden_layers: number; readonly num_attention_heads: number; readonly num_key_value_heads: number | null }
> = {
  read: (file) => {
    const heads = file.perLayer("attention.head_count_kv", file.layerCount());
    return {
      num_key_value_heads: largest(heads),
      layer_types: heads.map((count) => (count === 0 ? "conv" : "full_attention")),
      intermediate_size: file.count("feed_forward_length"),
      block_auto_adjust_ff_dim: false,
    };
  },
  write: (config) => {
    const heads = config.num_key_value_heads ?? config.num_attention_heads;
    const value = Array.from({ length: config.num_hidden_layers }, (_, layer) => (hasAttention(config, layer) ? heads : 0));
    return { "attention.head_count_kv": { type: "i32[]", value }, feed_forward_length: { type: "u32", value: innerSize(config) } };
  },
};

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
  gguf: {
    architecture: "lfm2",
    refuses: ({ conv_bias: has }) => (has ? '"conv_bias" is true' : null),
    keys: [
      ...sizeKeys.slice(0, 3),
      counted("attention.head_count", "num_attention_heads"),
      counted("shortconv.l_cache", "conv_L_cache"),
      measured("attention.layer_norm_rms_epsilon", "norm_eps"),
      vocabSize,
      headDim,
      ropeKeys((config: RotaryConfig, path) => readRope(config, path, { theta: 1e6 })),
      layerKeys,
    ],
    layer: () => ({
      ...llamaNames,
      ...queryKeyNorms,
      operator_norm: "attn_norm",
      ffn_norm: "ffn_norm",
      "conv.conv": squeezed("shortconv.conv"),
      "conv.in_proj": "shortconv.in_proj",
      "conv.out_proj": "shortconv.out_proj",
      "self_attn.out_proj": "attn_output",
      "self_attn.q_layernorm": "attn_q_norm",
      "self_attn.k_layernorm": "attn_k_norm",
      "feed_forward.w1": "ffn_gate",
      "feed_forward.w3": "ffn_up",
      "feed_forward.w2": "ffn_down",
    }),
    model: () => ({ norm: "token_embd_norm" }),
  },
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
    const inner = innerSize(config);
    return decoderNamed(
      config,
      norm,
      (layer) => ({
        mixer: hasAttention(config, layer) ? attention : conv,
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

interface Inner {
  readonly intermediate_size: number | null;
  readonly block_ff_dim: number | null;
  readonly block_auto_adjust_ff_dim: boolean;
  readonly block_ffn_dim_multiplier: number;
  readonly block_multiple_of: number;
}

/** Two thirds of what the file says, times a factor, up to the next multiple. */
function innerSize(config: Inner): number {
  const given = config.block_ff_dim ?? config.intermediate_size ?? 12288;
  if (!config.block_auto_adjust_ff_dim) return given;
  const scaled = Math.trunc(config.block_ffn_dim_multiplier * Math.trunc((2 * given) / 3));
  return config.block_multiple_of * Math.ceil(scaled / config.block_multiple_of);
}
