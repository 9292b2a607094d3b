import type { LayerOptions } from "../decoder/layer.js";
import { count } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { qwenWindows, rotary, sizes } from "./fields.js";
import { llamaKeys, silu } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames } from "./gguf/targets.js";
import { contextOf, readRope } from "./rope.js";
import {
  decoderNamed,
  gatedMlp,
  headRules,
  layerTypeRule,
  normsInFront,
  qwenWindowKeys,
  qwenWindowOf,
  rmsNorm,
  selfAttention,
} from "./standard.js";

/** Qwen2 and Qwen2.5 (Yang et al. 2024): transformers' Qwen2ForCausalLM. */
export const qwen2: Family = defineFamily({
  className: "Qwen2ForCausalLM",
  fields: { ...sizes, max_position_embeddings: count(32768), ...rotary, ...qwenWindows },
  rules: [...headRules, layerTypeRule],
  prefixes: [["", "model."]],
  gguf: {
    architecture: "qwen2",
    keys: [...llamaKeys, silu, ropeKeys(readRope), qwenWindowKeys],
    layer: () => llamaNames,
  },
  decoder: (config, path) => {
    const [rope, norm] = [readRope(config, path), rmsNorm(config)];
    const bias = { q: true, k: true, v: true };
    const layer = (index: number): LayerOptions => ({
      mixer: selfAttention(config, { rope, bias, window: qwenWindowOf(config, index) }),
      feedForward: gatedMlp(config),
      norm,
      norms: normsInFront,
    });
    return decoderNamed(config, norm, layer, { contextLength: contextOf(config, rope) });
  },
});
