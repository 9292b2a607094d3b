import { flag, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { rotary, sizes } from "./fields.js";
import { biasField, llamaKeys, silu } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, normsBehindNames, queryKeyNorms } from "./gguf/targets.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, everyBias, gatedMlp, headRules, normsBehind, queryKeyNorm, rmsNorm, selfAttention } from "./standard.js";

/** OLMo 2 (OLMo Team 2024), with norms behind and queries and keys normed over all heads: transformers' Olmo2ForCausalLM. */
export const olmo2: Family = defineFamily({
  className: "Olmo2ForCausalLM",
  fields: { ...sizes, rms_norm_eps: positive(1e-5), ...rotary, attention_bias: flag(false) },
  rules: headRules,
  prefixes: [["", "model."]],
  gguf: {
    architecture: "olmo2",
    hasOwnHead: true,
    isOurs: (file) => !file.has("attention.sliding_window"),
    keys: [...llamaKeys, silu, ropeKeys(readRope), biasField("attention_bias", "attn_q.bias", "without")],
    layer: () => ({ ...llamaNames, ...queryKeyNorms, ...normsBehindNames }),
  },
  decoder: (config, path) => {
    const [rope, norm] = [readRope(config, path), rmsNorm(config)];
    const bias = everyBias(config.attention_bias);
    const layer = {
      mixer: selfAttention(config, { rope, bias, queryKeyNorm: queryKeyNorm(norm, "projection") }),
      feedForward: gatedMlp(config),
      norm,
      norms: normsBehind,
    };
    return decoderNamed(config, norm, () => layer, { contextLength: contextOf(config, rope) });
  },
});
