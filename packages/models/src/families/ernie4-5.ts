import { count, countOrNull, flag, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { orNone, rotary, sizes } from "./fields.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, gatedMlp, headRules, normsInFront, rmsNorm, selfAttention } from "./standard.js";

/** ERNIE 4.5 0.3B (Baidu 2025): transformers' Ernie4_5ForCausalLM. Llama with rope over neighbouring pairs. */
export const ernie4_5: Family = defineFamily({
  className: "Ernie4_5ForCausalLM",
  fields: {
    ...sizes,
    ...rotary,
    max_position_embeddings: count(131072),
    rms_norm_eps: positive(1e-5),
    head_dim: orNone(128, countOrNull()),
    use_bias: flag(false),
    tie_word_embeddings: flag(true),
  },
  rules: headRules,
  prefixes: [["", "model."]],
  decoder: (config, path) => {
    const norm = rmsNorm(config);
    const { use_bias: has } = config;
    const rope = readRope(config, path, { theta: 500000, pairing: "adjacent" });
    const layer = {
      mixer: selfAttention(config, { rope, bias: { q: has, k: has, v: has, out: has } }),
      feedForward: gatedMlp(config, { bias: { up: has, down: has } }),
      norm,
      norms: normsInFront,
    };
    return decoderNamed(config, norm, () => layer, { contextLength: contextOf(config, rope) });
  },
});
