import type { LayerOptions } from "../decoder/layer.js";
import { countOrNull, flag, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { rotary, sizes, windows } from "./fields.js";
import { contextOf, readRope } from "./rope.js";
import {
  decoderNamed,
  everyBias,
  gatedMlp,
  headRules,
  layerTypeRule,
  normsBehind,
  queryKeyNorm,
  rmsNorm,
  selfAttention,
  slides,
  windowOf,
} from "./standard.js";

/** OLMo 3 (OLMo Team 2025): OLMo 2 with windows in three of four layers, whose rotary positions are not stretched: transformers' Olmo3ForCausalLM. */
export const olmo3: Family = defineFamily({
  className: "Olmo3ForCausalLM",
  fields: {
    ...sizes,
    rms_norm_eps: positive(1e-5),
    ...rotary,
    ...windows,
    sliding_window: countOrNull(4096),
    attention_bias: flag(false),
  },
  rules: [...headRules, layerTypeRule],
  prefixes: [["", "model."]],
  decoder: (config, path) => {
    const full = readRope(config, path, { theta: 5e5, layerType: "full_attention" });
    // transformers keeps a hub file's rope_theta for the full layers alone.
    const local = readRope({ ...config, rope_scaling: null, rope_theta: null }, path, { theta: 5e5, layerType: "sliding_attention" });
    const norm = rmsNorm(config);
    const isSliding = (layer: number): boolean => (layer + 1) % 4 !== 0;
    const shared = { bias: everyBias(config.attention_bias), queryKeyNorm: queryKeyNorm(norm, "projection") };
    const layer = (index: number): LayerOptions => ({
      mixer: selfAttention(config, {
        ...shared,
        rope: slides(config, index, isSliding) ? local : full,
        window: windowOf(config, index, isSliding),
      }),
      feedForward: gatedMlp(config),
      norm,
      norms: normsBehind,
    });
    return decoderNamed(config, norm, layer, { contextLength: contextOf(config, full) });
  },
});
