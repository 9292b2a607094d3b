import { activationNames } from "../activation.js";
import { choice, count, countOrNull, flag } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { only, rotary, sizes } from "./fields.js";
import { gelu } from "./gguf/gemma.js";
import { biasField, llamaKeys, tiedHead } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, normsOnePlus, onePlus } from "./gguf/targets.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, everyBias, gatedMlp, headRules, normsInFront, rmsNorm, selfAttention } from "./standard.js";

/** Gemma (Gemma Team 2024), with embeddings times √width and norms times 1 + w: transformers' GemmaForCausalLM. */
export const gemma: Family = defineFamily({
  className: "GemmaForCausalLM",
  fields: {
    ...sizes,
    num_key_value_heads: countOrNull(16),
    head_dim: count(256),
    max_position_embeddings: count(8192),
    hidden_act: choice(activationNames, "gelu_pytorch_tanh"),
    tie_word_embeddings: flag(true),
    ...rotary,
    attention_bias: flag(false),
    use_bidirectional_attention: only(false),
  },
  rules: headRules,
  prefixes: [["", "model."]],
  remarks: ["hidden_activation"],
  gguf: {
    architecture: "gemma",
    keys: [...llamaKeys, tiedHead, gelu, ropeKeys(readRope), biasField("attention_bias", "attn_q.bias", "without")],
    layer: () => normsOnePlus(llamaNames),
    model: () => ({ norm: onePlus("output_norm") }),
  },
  decoder: (config, path) => {
    const rope = readRope(config, path);
    const norm = { ...rmsNorm(config), weight: "1 + w" } as const;
    // The first files say "gelu" and mean its approximation.
    const activation = config.hidden_act === "gelu" ? "gelu_pytorch_tanh" : config.hidden_act;
    const layer = {
      mixer: selfAttention(config, { rope, bias: everyBias(config.attention_bias) }),
      feedForward: gatedMlp(config, { activation }),
      norm,
      norms: normsInFront,
    };
    const embedding = { scale: Math.sqrt(config.hidden_size) };
    return decoderNamed(config, norm, () => layer, { contextLength: contextOf(config, rope), embedding });
  },
});
