import { count, countOrNull } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { only, rotary, sizes, withDefaults } from "./fields.js";
import { expertKeys, expertNames } from "./gguf/experts.js";
import { llamaKeys, silu, vocabSize } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, neighbours } from "./gguf/targets.js";
import { window } from "./gguf/windows.js";
import { fewerChoices, mixture } from "./mixture.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, headRules, normsInFront, rmsNorm, selfAttention } from "./standard.js";

/** Mixtral (Jiang et al. 2024): transformers' MixtralForCausalLM. */
export const mixtral: Family = defineFamily({
  className: "MixtralForCausalLM",
  fields: {
    ...withDefaults(sizes, {
      vocab_size: 32000,
      num_attention_heads: 32,
      num_key_value_heads: 8,
      max_position_embeddings: 131072,
      rms_norm_eps: 1e-5,
    }),
    ...rotary,
    sliding_window: countOrNull(),
    num_local_experts: count(8),
    num_experts_per_tok: count(2),
    output_router_logits: only(false),
  },
  rules: [...headRules, fewerChoices("num_experts_per_tok", "num_local_experts")],
  otherNames: { num_experts: "num_local_experts" },
  prefixes: [["", "model."]],
  remarks: ["router_jitter_noise"],
  gguf: {
    architecture: "llama",
    isOurs: (file) => file.count("expert_count", 0) > 0,
    keys: [...llamaKeys, silu, vocabSize, ropeKeys(readRope, { dimensions: "always" }), window, ...expertKeys("num_local_experts")],
    layer: (config) => ({ ...llamaNames, ...neighbours(config), ...expertNames("mlp") }),
  },
  decoder: (config, path) => {
    const rope = readRope(config, path, { theta: 1e6 });
    const norm = rmsNorm(config);
    const { num_local_experts: experts, num_experts_per_tok: choices, intermediate_size: inner, hidden_act: activation } = config;
    const decoder = decoderNamed(
      config,
      norm,
      () => ({
        mixer: selfAttention(config, { rope, window: config.sliding_window }),
        feedForward: mixture({
          count: experts,
          choices,
          inner,
          activation,
          stored: { kind: "each", gate: "w1", up: "w3", down: "w2", areTargets: true },
        }),
        norm,
        norms: normsInFront,
      }),
      { contextLength: contextOf(config, rope) },
    );
    // Adapters are filed under transformers' names of today.
    return { ...decoder, savedNames: [".mlp.", ".block_sparse_moe."] };
  },
});
