import type { LayerOptions } from "../decoder/layer.js";
import { count, flag } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { qwenWindows, rotary, sizes } from "./fields.js";
import { biasField, llamaKeys, silu } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, queryKeyNorms } from "./gguf/targets.js";
import { contextOf, readRope } from "./rope.js";
import {
  decoderNamed,
  everyBias,
  gatedMlp,
  headRules,
  layerTypeRule,
  normsInFront,
  queryKeyNorm,
  qwenWindowKeys,
  qwenWindowOf,
  rmsNorm,
  selfAttention,
} from "./standard.js";

/** Qwen3 (Yang et al. 2025), with queries and keys normed per head: transformers' Qwen3ForCausalLM. */
export const qwen3: Family = defineFamily({
  className: "Qwen3ForCausalLM",
  fields: { ...sizes, head_dim: count(128), max_position_embeddings: count(32768), ...rotary, ...qwenWindows, attention_bias: flag(false) },
  rules: [...headRules, layerTypeRule],
  prefixes: [["", "model."]],
  gguf: {
    architecture: "qwen3",
    keys: [...llamaKeys, silu, ropeKeys(readRope), biasField("attention_bias", "attn_q.bias", "without"), qwenWindowKeys],
    layer: () => ({ ...llamaNames, ...queryKeyNorms }),
  },
  decoder: (config, path) => {
    const [rope, norm] = [readRope(config, path), rmsNorm(config)];
    const shared = { rope, bias: everyBias(config.attention_bias), queryKeyNorm: queryKeyNorm(norm, "head") };
    const layer = (index: number): LayerOptions => ({
      mixer: selfAttention(config, { ...shared, window: qwenWindowOf(config, index) }),
      feedForward: gatedMlp(config),
      norm,
      norms: normsInFront,
    });
    return decoderNamed(config, norm, layer, { contextLength: contextOf(config, rope) });
  },
});
