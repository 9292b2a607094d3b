import { count, countOrNull } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { rotary, sizes } from "./fields.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, gatedMlp, headRules, normsInFront, rmsNorm, selfAttention } from "./standard.js";

/** Mistral (Jiang et al. 2023), with a window in every layer: transformers' MistralForCausalLM. */
export const mistral: Family = defineFamily({
  className: "MistralForCausalLM",
  fields: {
    ...sizes,
    num_key_value_heads: countOrNull(8),
    max_position_embeddings: count(131072),
    ...rotary,
    sliding_window: countOrNull(4096),
  },
  rules: headRules,
  prefixes: [["", "model."]],
  decoder: (config, path) => {
    const [rope, norm] = [readRope(config, path), rmsNorm(config)];
    const layer = {
      mixer: selfAttention(config, { rope, window: config.sliding_window }),
      feedForward: gatedMlp(config),
      norm,
      norms: normsInFront,
    };
    return decoderNamed(config, norm, () => layer, { contextLength: contextOf(config, rope) });
  },
});
