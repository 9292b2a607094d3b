import type { LayerOptions } from "../decoder/layer.js";
import type { RopeOptions } from "../decoder/rope.js";
import { count, flag } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { layerNormSizes, numberOrNull, rotary, type Windows, windows } from "./fields.js";
import { headDim, layerEpsilon, logitScale, silu, sizeKeys, squareHeads, tiedHead, vocabSize } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames } from "./gguf/targets.js";
import { windowButEvery } from "./gguf/windows.js";
import { contextOf, type RotaryConfig, readRope } from "./rope.js";
import { decoderNamed, everyBias, gatedMlp, headRules, layerTypeRule, selfAttention, slides } from "./standard.js";

const adjacent = (config: RotaryConfig, path: string): RopeOptions => readRope(config, path, { pairing: "adjacent" });

function hasWindow(config: Windows & { readonly sliding_window_pattern: number }, layer: number): boolean {
  return slides(config, layer, () => (layer + 1) % config.sliding_window_pattern !== 0);
}

const fourth = windowButEvery<Windows & { readonly sliding_window_pattern: number; readonly num_hidden_layers: number }>(4, hasWindow);

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
  gguf: {
    architecture: "cohere2",
    refuses: (config) =>
      config.attention_bias ? '"attention_bias" is true' : fourth.fits(config) ? null : "windows do not return every so many layers",
    keys: [
      ...sizeKeys,
      headDim,
      squareHeads,
      tiedHead,
      layerEpsilon,
      silu,
      ropeKeys(adjacent, { dimensions: "always", isNamedNone: true }),
      logitScale,
      fourth,
      vocabSize,
    ],
    layer: () => llamaNames,
  },
  decoder: (config, path) => {
    const norm = { kind: "layer", eps: config.layer_norm_eps } as const;
    const { attention_bias: has, sliding_window: window } = config;
    const bias = everyBias(has);
    const rope = adjacent(config, path);
    const layer = (index: number): LayerOptions => {
      const isSliding = hasWindow(config, index);
      const mixer = selfAttention(config, { bias, rope: isSliding ? rope : null, window: isSliding ? window : null });
      return { mixer, feedForward: gatedMlp(config), norm, norms: { beforeMixer: "input_layernorm" }, isParallel: true };
    };
    return decoderNamed(config, norm, layer, { contextLength: contextOf(config, rope), head: { scale: config.logit_scale ?? 0.0625 } });
  },
});
