import type { RopeOptions } from "../decoder/rope.js";
import { count, countOrNull, flag, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { orNone, rotary, sizes } from "./fields.js";
import { biasField, llamaKeys, silu } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames } from "./gguf/targets.js";
import { contextOf, type RotaryConfig, readRope } from "./rope.js";
import { decoderNamed, everyBias, gatedMlp, headRules, normsInFront, rmsNorm, selfAttention } from "./standard.js";

const adjacent = (config: RotaryConfig, path: string): RopeOptions => readRope(config, path, { theta: 500000, pairing: "adjacent" });

/** ERNIE 4.5 0.3B (Baidu 2025): transformers' Ernie4_5ForCausalLM. Llama with rope over neighbouring pairs. */
export const ernie4_5: Family = defineFamily({
  className: "Ernie4_5ForCausalLM",
  fields: {
    ...sizes,
    ...rotary,
    num_key_value_heads: countOrNull(2),
    max_position_embeddings: count(131072),
    rms_norm_eps: positive(1e-5),
    head_dim: orNone(128, countOrNull()),
    use_bias: flag(false),
    tie_word_embeddings: flag(true),
  },
  rules: headRules,
  prefixes: [["", "model."]],
  gguf: {
    architecture: "ernie4_5",
    keys: [...llamaKeys, silu, ropeKeys(adjacent), biasField("use_bias", "attn_q.bias", "without")],
    layer: () => llamaNames,
  },
  decoder: (config, path) => {
    const norm = rmsNorm(config);
    const { use_bias: has } = config;
    const rope = adjacent(config, path);
    const layer = {
      mixer: selfAttention(config, { rope, bias: everyBias(has) }),
      feedForward: gatedMlp(config, { bias: { up: has, down: has } }),
      norm,
      norms: normsInFront,
    };
    return decoderNamed(config, norm, () => layer, { contextLength: contextOf(config, rope) });
  },
});
