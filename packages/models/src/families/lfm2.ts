import { feedForward } from "../decoder/feed-forward.js";
import { shortConv } from "../decoder/short-conv.js";
import { count, countOrNull, flag, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { flagOrNull, layerTypes, list, numberOrNull, rotary, sizes, withDefaults } from "./fields.js";
import { counted, headDim, measured, sizeKeys, vocabSize } from "./gguf/keys.js";
import { type Layered, lfm2LayerKeys, lfm2Names } from "./gguf/lfm2.js";
import { ropeKeys } from "./gguf/rope.js";
import { contextOf, type RotaryConfig, readRope } from "./rope.js";
import { decoderNamed, headRules, selfAttention, typePerLayer } from "./standard.js";

const usual = { vocab_size: 65536, num_attention_heads: 32, num_key_value_heads: 8, max_position_embeddings: 128000 };
const { rms_norm_eps: _eps, hidden_act: _activation, intermediate_size: _inner, ...own } = withDefaults(sizes, usual);

interface Layers {
  readonly layer_types: readonly string[] | null;
  readonly full_attn_idxs: readonly number[] | null;
}

function hasAttention({ layer_types: types, full_attn_idxs: full }: Layers, layer: number): boolean {
  return types ? types[layer] === "full_attention" : (full?.includes(layer) ?? true);
}

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
    block_ffn_dim_multiplier: numberOrNull(1),
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
      lfm2LayerKeys<Layered & Layers & Inner>(hasAttention, innerSize),
    ],
    layer: () => lfm2Names,
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
  readonly block_ffn_dim_multiplier: number | null;
  readonly block_multiple_of: number;
}

/** Two thirds of what the file says, and where it has a factor, times that up to the next multiple. */
function innerSize(config: Inner): number {
  const given = config.block_ff_dim ?? config.intermediate_size ?? 12288;
  if (!config.block_auto_adjust_ff_dim) return given;
  const { block_ffn_dim_multiplier: factor, block_multiple_of: unit } = config;
  const part = Math.trunc((2 * given) / 3);
  return factor === null ? part : unit * Math.ceil(Math.trunc(factor * part) / unit);
}
