import { flag, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { rotary, sizes } from "./fields.js";
import { biasField, graniteScales, ignoredKeys, llamaKeys, silu, vocabSize } from "./gguf/keys.js";
import { ssmNames } from "./gguf/mamba.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, neighbours } from "./gguf/targets.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, everyBias, gatedMlp, headRules, normsInFront, rmsNorm, selfAttention } from "./standard.js";

/** Granite 3 and 4, with multipliers of embeddings, scores, residuals and logits: transformers' GraniteForCausalLM. */
export const granite: Family = defineFamily({
  className: "GraniteForCausalLM",
  fields: {
    ...sizes,
    ...rotary,
    attention_bias: flag(false),
    mlp_bias: flag(false),
    embedding_multiplier: positive(1),
    attention_multiplier: positive(1),
    residual_multiplier: positive(1),
    /** Logits are divided by it. */
    logits_scaling: positive(1),
  },
  rules: headRules,
  prefixes: [["", "model."]],
  gguf: {
    architecture: "granite",
    keys: [
      ...llamaKeys,
      silu,
      ropeKeys(readRope, { dimensions: "always" }),
      vocabSize,
      ...graniteScales,
      // What files of hybrids say where all layers have attention.
      ignoredKeys("expert_count", "expert_used_count", "expert_shared_feed_forward_length", ...ssmNames),
      biasField("attention_bias", "attn_q.bias"),
      biasField("mlp_bias", "ffn_gate.bias"),
    ],
    layer: (config) => ({ ...llamaNames, ...neighbours(config) }),
  },
  decoder: (config, path) => {
    const [rope, norm, { mlp_bias: has }] = [readRope(config, path), rmsNorm(config), config];
    const layer = {
      mixer: selfAttention(config, { rope, bias: everyBias(config.attention_bias), scale: config.attention_multiplier }),
      feedForward: gatedMlp(config, { bias: { up: has, down: has } }),
      norm,
      norms: normsInFront,
      residualScale: config.residual_multiplier,
    };
    return decoderNamed(config, norm, () => layer, {
      contextLength: contextOf(config, rope),
      embedding: { scale: config.embedding_multiplier, scalesPrompt: true },
      head: { scale: 1 / config.logits_scaling },
    });
  },
});
