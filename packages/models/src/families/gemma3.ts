import { activationNames } from "../activation.js";
import type { LayerOptions } from "../decoder/layer.js";
import { choice, count, countOrNull, flag, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { numberOrNull, only, rotary, sizes, windows } from "./fields.js";
import { contextOf, readRope } from "./rope.js";
import {
  decoderNamed,
  everyBias,
  gatedMlp,
  headRules,
  layerTypeRule,
  normsAround,
  queryKeyNorm,
  rmsNorm,
  selfAttention,
  slides,
  windowOf,
} from "./standard.js";

/** Gemma 3 (Gemma Team 2025): five layers with a window and a rotary embedding of their own to one without: transformers' Gemma3ForCausalLM. */
export const gemma3Text: Family = defineFamily({
  className: "Gemma3ForCausalLM",
  fields: {
    ...sizes,
    num_key_value_heads: countOrNull(4),
    head_dim: count(256),
    max_position_embeddings: count(131072),
    hidden_activation: choice(activationNames, "gelu_pytorch_tanh"),
    tie_word_embeddings: flag(true),
    ...rotary,
    rope_local_base_freq: positive(10000),
    ...windows,
    sliding_window: countOrNull(4096),
    sliding_window_pattern: count(6),
    attention_bias: flag(false),
    query_pre_attn_scalar: count(256),
    final_logit_softcapping: numberOrNull(),
    use_bidirectional_attention: only(false),
  },
  rules: [...headRules, layerTypeRule],
  prefixes: [["", "model."]],
  // transformers reads a cap of scores of Gemma 3's and does nothing with it.
  remarks: ["hidden_act", "_sliding_window_pattern", "attn_logit_softcapping"],
  decoder: (config, path) => {
    const full = readRope(config, path, { theta: 1e6, layerType: "full_attention" });
    const near = { ...config, rope_scaling: null, rope_theta: config.rope_local_base_freq };
    const local = readRope(near, path, { layerType: "sliding_attention" });
    const norm = { ...rmsNorm(config), weight: "1 + w" } as const;
    const isSliding = (layer: number): boolean => (layer + 1) % config.sliding_window_pattern !== 0;
    const layer = (index: number): LayerOptions => {
      const window = windowOf(config, index, isSliding);
      const options = {
        rope: slides(config, index, isSliding) ? local : full,
        bias: everyBias(config.attention_bias),
        scale: 1 / Math.sqrt(config.query_pre_attn_scalar),
        queryKeyNorm: queryKeyNorm(norm, "head"),
        window,
      };
      const feedForward = gatedMlp(config, { activation: config.hidden_activation });
      return { mixer: selfAttention(config, options), feedForward, norm, norms: normsAround };
    };
    return decoderNamed(config, norm, layer, {
      contextLength: contextOf(config, full),
      embedding: { scale: Math.sqrt(config.hidden_size) },
      head: { cap: config.final_logit_softcapping },
    });
  },
});
