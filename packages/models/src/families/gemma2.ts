import { activationNames } from "../activation.js";
import type { LayerOptions } from "../decoder/layer.js";
import { choice, count, countOrNull, flag } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { numberOrNull, only, rotary, sizes, windows } from "./fields.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, everyBias, gatedMlp, headRules, layerTypeRule, normsAround, rmsNorm, selfAttention, windowOf } from "./standard.js";

/** Gemma 2 (Gemma Team 2024), with caps, windows by turns and norms around both sublayers: transformers' Gemma2ForCausalLM. */
export const gemma2: Family = defineFamily({
  className: "Gemma2ForCausalLM",
  fields: {
    ...sizes,
    num_key_value_heads: countOrNull(4),
    head_dim: count(256),
    max_position_embeddings: count(8192),
    hidden_activation: choice(activationNames, "gelu_pytorch_tanh"),
    tie_word_embeddings: flag(true),
    ...rotary,
    ...windows,
    sliding_window: countOrNull(4096),
    attention_bias: flag(false),
    query_pre_attn_scalar: count(256),
    attn_logit_softcapping: numberOrNull(50),
    final_logit_softcapping: numberOrNull(30),
    use_bidirectional_attention: only(false),
  },
  rules: [...headRules, layerTypeRule],
  prefixes: [["", "model."]],
  remarks: ["hidden_act"],
  decoder: (config, path) => {
    const rope = readRope(config, path);
    const norm = { ...rmsNorm(config), weight: "1 + w" } as const;
    const shared = {
      rope,
      bias: everyBias(config.attention_bias),
      scale: 1 / Math.sqrt(config.query_pre_attn_scalar),
      cap: config.attn_logit_softcapping,
    };
    const layer = (index: number): LayerOptions => ({
      mixer: selfAttention(config, { ...shared, window: windowOf(config, index, () => index % 2 === 0) }),
      feedForward: gatedMlp(config, { activation: config.hidden_activation }),
      norm,
      norms: normsAround,
    });
    return decoderNamed(config, norm, layer, {
      contextLength: contextOf(config, rope),
      embedding: { scale: Math.sqrt(config.hidden_size) },
      head: { cap: config.final_logit_softcapping },
    });
  },
});
