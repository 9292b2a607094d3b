import { count, flag } from "../schema.js";
import { deltaFields, deltaNet, deltaRules, isLinear } from "./delta.js";
import { defineFamily, type Family } from "./family.js";
import { only, rotary, sizes } from "./fields.js";
import { fewerChoices, isSparse, mixture, sparseLayers } from "./mixture.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, gatedMlp, headRules, normsInFront, selfAttention, typePerLayer } from "./standard.js";

/** Qwen3-Next (Qwen 2025): transformers' Qwen3NextForCausalLM. */
export const qwen3Next: Family = defineFamily({
  className: "Qwen3NextForCausalLM",
  fields: {
    ...sizes,
    ...rotary,
    ...deltaFields,
    ...sparseLayers,
    attention_bias: flag(false),
    num_experts: count(512),
    num_experts_per_tok: count(10),
    moe_intermediate_size: count(512),
    shared_expert_intermediate_size: count(512),
    norm_topk_prob: flag(true),
    output_router_logits: only(false),
  },
  rules: [...headRules, typePerLayer, ...deltaRules, fewerChoices("num_experts_per_tok", "num_experts")],
  prefixes: [["", "model."]],
  ignored: /^mtp\./,
  decoder: (config, path) => {
    const rope = readRope(config, path, { isPartial: true, partial: 0.25 });
    const norm = { kind: "rms", eps: config.rms_norm_eps, weight: "1 + w" } as const;
    const { attention_bias: has, hidden_act: activation } = config;
    const attention = selfAttention(config, {
      rope,
      isGated: true,
      bias: { q: has, k: has, v: has, out: has },
      queryKeyNorm: { q: "q_norm", k: "k_norm", norm, over: "head" },
    });
    const names = { gate: "gate_proj", up: "up_proj", down: "down_proj" };
    const sparse = mixture({
      count: config.num_experts,
      choices: config.num_experts_per_tok,
      inner: config.moe_intermediate_size,
      activation,
      isNormalized: config.norm_topk_prob,
      shared: {
        name: "shared_expert",
        gate: "shared_expert_gate",
        options: { inner: config.shared_expert_intermediate_size, activation, names },
      },
    });
    return decoderNamed(
      config,
      norm,
      (layer) => ({
        mixer: isLinear(config, layer) ? deltaNet(config, "fused") : attention,
        feedForward: isSparse(layer, config) ? sparse : gatedMlp(config),
        norm,
        norms: normsInFront,
      }),
      { contextLength: contextOf(config, rope) },
    );
  },
});
