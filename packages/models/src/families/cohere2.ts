import type { LayerOptions } from "../decoder/layer.js";
import { count, flag } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { layerNormSizes, numberOrNull, rotary, windows } from "./fields.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, gatedMlp, headRules, layerTypeRule, selfAttention, slides } from "./standard.js";

/** Command R7B and Command A (Cohere 2024, 2025): transformers' Cohere2ForCausalLM. Only the layers with a window have positions. */
export const cohere2: Family = defineFamily({
  className: "Cohere2ForCausalLM",
  fields: {
    ...layerNormSizes,
    ...rotary,
    ...windows,
    max_position_embeddings: count(8192),
    sliding_window: count(4096),
    sliding_window_pattern: count(4),
    logit_scale: numberOrNull(),
    attention_bias: flag(false),
    tie_word_embeddings: flag(true),
  },
  rules: [...headRules, layerTypeRule],
  remarks: [
    "rotary_pct",
    "order_of_interleaved_layers",
    "position_embedding_type",
    "layer_switch",
    "use_embedding_sharing",
    "use_gated_activation",
  ],
  prefixes: [["", "model."]],
  decoder: (config, path) => {
    const norm = { kind: "layer", eps: config.layer_norm_eps } as const;
    const { attention_bias: has, sliding_window: window } = config;
    const bias = { q: has, k: has, v: has, out: has };
    const rope = readRope(config, path, { pairing: "adjacent" });
    const isLocal = (layer: number): boolean => (layer + 1) % config.sliding_window_pattern !== 0;
    const layer = (index: number): LayerOptions => {
      const isSliding = slides(config, index, isLocal);
      const mixer = selfAttention(config, { bias, rope: isSliding ? rope : null, window: isSliding ? window : null });
      return { mixer, feedForward: gatedMlp(config), norm, norms: { beforeMixer: "input_layernorm" }, isParallel: true };
    };
    return decoderNamed(config, norm, layer, { contextLength: contextOf(config, rope), head: { scale: config.logit_scale ?? 0.0625 } });
  },
});
