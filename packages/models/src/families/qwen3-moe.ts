import { count, countOrNull, flag } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { only, rotary, sizes, withDefaults } from "./fields.js";
import { expertKeys, expertNames, expertWidth } from "./gguf/experts.js";
import { biasField, fixed, llamaKeys, silu } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, queryKeyNorms } from "./gguf/targets.js";
import { fewerChoices, isSparse, mixture, sparseLayers } from "./mixture.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, everyBias, gatedMlp, headRules, normsInFront, queryKeyNorm, rmsNorm, selfAttention } from "./standard.js";

/** Qwen3 with experts (Yang et al. 2025): transformers' Qwen3MoeForCausalLM. */
export const qwen3Moe: Family = defineFamily({
  className: "Qwen3MoeForCausalLM",
  fields: {
    ...withDefaults(sizes, { vocab_size: 151936, num_attention_heads: 32, num_key_value_heads: 4, max_position_embeddings: 32768 }),
    ...rotary,
    ...sparseLayers,
    attention_bias: flag(false),
    use_sliding_window: flag(false),
    sliding_window: countOrNull(4096),
    num_experts: countOrNull(),
    num_local_experts: countOrNull(),
    num_experts_per_tok: count(8),
    moe_intermediate_size: count(768),
    norm_topk_prob: flag(false),
    output_router_logits: only(false),
  },
  rules: [...headRules, fewerChoices("num_experts_per_tok", "num_experts"), fewerChoices("num_experts_per_tok", "num_local_experts")],
  prefixes: [["", "model."]],
  remarks: ["max_window_layers"],
  gguf: {
    architecture: "qwen3moe",
    refuses: (config) => {
      if (!config.norm_topk_prob) return '"norm_topk_prob" is false';
      const layers = Array.from({ length: config.num_hidden_layers }, (_, layer) => layer);
      return layers.every((layer) => isSparse(layer, config)) ? null : "some layers have no experts";
    },
    keys: [
      ...llamaKeys,
      silu,
      ropeKeys(readRope),
      ...expertKeys("num_experts", "num_local_experts"),
      expertWidth,
      biasField("attention_bias", "attn_q.bias", "without"),
      fixed({ norm_topk_prob: true }),
    ],
    layer: () => ({ ...llamaNames, ...queryKeyNorms, ...expertNames("mlp") }),
  },
  decoder: (config, path) => {
    const rope = readRope(config, path);
    const norm = rmsNorm(config);
    const { attention_bias: has, hidden_act: activation, norm_topk_prob: isNormalized } = config;
    const experts = {
      count: config.num_experts ?? config.num_local_experts ?? 128,
      choices: config.num_experts_per_tok,
      inner: config.moe_intermediate_size,
    };
    return decoderNamed(
      config,
      norm,
      (layer) => ({
        mixer: selfAttention(config, {
          rope,
          bias: everyBias(has),
          window: config.use_sliding_window ? config.sliding_window : null,
          queryKeyNorm: queryKeyNorm(norm, "head"),
        }),
        feedForward: isSparse(layer, config) ? mixture({ ...experts, activation, isNormalized }) : gatedMlp(config),
        norm,
        norms: normsInFront,
      }),
      { contextLength: contextOf(config, rope) },
    );
  },
});
