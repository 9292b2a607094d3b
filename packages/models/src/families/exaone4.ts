import type { LayerOptions } from "../decoder/layer.js";
import { countOrNull, field, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { orNone, rotary, sizes, windows } from "./fields.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, gatedMlp, headRules, layerTypeRule, rmsNorm, selfAttention, slides } from "./standard.js";

/** EXAONE 4 (LG AI Research 2025): transformers' Exaone4ForCausalLM. Norms behind; full layers among sliding ones have no positions. */
export const exaone4: Family = defineFamily({
  className: "Exaone4ForCausalLM",
  fields: {
    ...sizes,
    ...rotary,
    ...windows,
    rms_norm_eps: positive(1e-5),
    sliding_window: orNone(4096, countOrNull()),
    sliding_window_pattern: field<number | string | null>(
      "a whole number, or letters L and G",
      (value) => value === null || (Number.isSafeInteger(value) && (value as number) >= 0) || /^[LG]+$/.test(String(value)),
      null,
    ),
  },
  rules: [...headRules, layerTypeRule],
  prefixes: [["", "model."]],
  decoder: (config, path) => {
    const norm = rmsNorm(config);
    const { sliding_window: window, sliding_window_pattern: given, num_hidden_layers: layers } = config;
    const pattern = given ?? 4;
    // L for local; of a pattern of letters the last layer is global whatever they say.
    const isLocal = (layer: number): boolean =>
      window !== null &&
      (typeof pattern === "number"
        ? pattern > 0 && (layer + 1) % pattern !== 0
        : layer + 1 < layers && pattern[layer % pattern.length] === "L");
    const rope = readRope(config, path);
    const layer = (index: number): LayerOptions => {
      const isSliding = slides(config, index, isLocal);
      const mixer = selfAttention(config, {
        rope: window === null || isSliding ? rope : null,
        window: isSliding ? window : null,
        queryKeyNorm: { q: "q_norm", k: "k_norm", norm, over: "head" },
      });
      return {
        mixer,
        feedForward: gatedMlp(config),
        norm,
        norms: { afterMixer: "post_attention_layernorm", afterFeedForward: "post_feedforward_layernorm" },
      };
    };
    return decoderNamed(config, norm, layer, { contextLength: contextOf(config, rope) });
  },
});
