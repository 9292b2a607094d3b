import { count, countOrNull, flag } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { numberOrNull } from "./fields.js";
import { counted, headDim, measured, sizeKeys, vocabSize } from "./gguf/keys.js";
import { type Layered, lfm2LayerKeys, lfm2Names } from "./gguf/lfm2.js";
import { ropeKeys } from "./gguf/rope.js";
import { convDecoder, convFields, convMlp, hasAttention } from "./lfm2-layers.js";
import { type RotaryConfig, readRope } from "./rope.js";
import { headRules, typePerLayer } from "./standard.js";

/** LFM2 (Liquid AI 2025): transformers' Lfm2ForCausalLM. */
export const lfm2: Family = defineFamily({
  className: "Lfm2ForCausalLM",
  fields: {
    ...convFields,
    intermediate_size: countOrNull(),
    block_ff_dim: countOrNull(),
    block_auto_adjust_ff_dim: flag(true),
    block_ffn_dim_multiplier: numberOrNull(1),
    block_multiple_of: count(256),
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
      lfm2LayerKeys<Layered & Parameters<typeof hasAttention>[0] & Inner>(hasAttention, innerSize),
    ],
    layer: () => lfm2Names,
    model: () => ({ norm: "token_embd_norm" }),
  },
  decoder: (config, path) => {
    const mlp = convMlp(innerSize(config));
    return convDecoder(config, path, () => mlp);
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
