import { feedForward } from "../decoder/feed-forward.js";
import type { RopeOptions } from "../decoder/rope.js";
import { count, countOrNull, flag, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { rotary, sizes } from "./fields.js";
import { biasField, llamaKeys, silu } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames } from "./gguf/targets.js";
import { contextOf, type RotaryConfig, readRope } from "./rope.js";
import { decoderNamed, headRules, rmsNorm, selfAttention } from "./standard.js";

const half = (config: RotaryConfig, path: string): RopeOptions =>
  readRope(config, path, { isPartial: true, partial: 0.5, pairing: "adjacent" });

/** GLM-4 0414 (Zhipu 2025): transformers' Glm4ForCausalLM. Norms before and after; half of each head turns, by neighbouring pairs. */
export const glm4: Family = defineFamily({
  className: "Glm4ForCausalLM",
  fields: {
    ...sizes,
    ...rotary,
    num_key_value_heads: countOrNull(2),
    max_position_embeddings: count(131072),
    rms_norm_eps: positive(1.5625e-7),
    head_dim: count(128),
    attention_bias: flag(true),
  },
  rules: headRules,
  prefixes: [["", "model."]],
  endTokens: [151329, 151336, 151338],
  gguf: {
    architecture: "glm4",
    keys: [...llamaKeys, silu, ropeKeys(half, { dimensions: "always", isPartial: true }), biasField("attention_bias", "attn_q.bias")],
    layer: () => ({
      ...llamaNames,
      post_self_attn_layernorm: "post_attention_norm",
      post_mlp_layernorm: "post_ffw_norm",
      "mlp.gate_up_proj": "ffn_up",
    }),
  },
  decoder: (config, path) => {
    const norm = rmsNorm(config);
    const { attention_bias: has, intermediate_size: inner, hidden_act: activation } = config;
    const rope = half(config, path);
    const mlp = feedForward({ inner, activation, names: { gateUp: "gate_up_proj", down: "down_proj" } });
    const layer = {
      mixer: selfAttention(config, { rope, bias: { q: has, k: has, v: has } }),
      feedForward: { name: "mlp", part: mlp },
      norm,
      norms: {
        beforeMixer: "input_layernorm",
        afterMixer: "post_self_attn_layernorm",
        beforeFeedForward: "post_attention_layernorm",
        afterFeedForward: "post_mlp_layernorm",
      },
    };
    return decoderNamed(config, norm, () => layer, { contextLength: contextOf(config, rope) });
  },
});
