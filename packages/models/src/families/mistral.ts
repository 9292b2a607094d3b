import { countOrNull } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { rotary, sizes, withDefaults } from "./fields.js";
import { llamaKeys, silu, vocabSize } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, neighbours } from "./gguf/targets.js";
import { window } from "./gguf/windows.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, gatedMlp, headRules, normsInFront, rmsNorm, selfAttention } from "./standard.js";

/** Mistral (Jiang et al. 2023), with a window in every layer: transformers' MistralForCausalLM. */
export const mistral: Family = defineFamily({
  className: "MistralForCausalLM",
  fields: {
    ...withDefaults(sizes, { vocab_size: 32000, num_attention_heads: 32, num_key_value_heads: 8, max_position_embeddings: 131072 }),
    ...rotary,
    sliding_window: countOrNull(4096),
  },
  rules: headRules,
  prefixes: [["", "model."]],
  gguf: {
    architecture: "llama",
    // llama.cpp sees all tokens whatever the window is; the key is ours.
    isOurs: (file) => file.count("expert_count", 0) === 0 && file.has("attention.sliding_window"),
    keys: [...llamaKeys, silu, vocabSize, ropeKeys(readRope, { dimensions: "always" }), window],
    layer: (config) => ({ ...llamaNames, ...neighbours(config) }),
  },
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
