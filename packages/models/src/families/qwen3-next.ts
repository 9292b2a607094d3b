import type { RopeOptions } from "../decoder/rope.js";
import { count, flag } from "../schema.js";
import { type DeltaSizes, deltaFields, deltaNet, deltaRules, deltaSizes, isLinear } from "./delta.js";
import { defineFamily, type Family } from "./family.js";
import { only, rotary, type Sizes, sizes, withDefaults } from "./fields.js";
import { deltaKeys, fusedNet, gatedNames, type NetLength } from "./gguf/delta.js";
import { expertKeys, expertNames, expertWidth, sharedExpert } from "./gguf/experts.js";
import { biasField, counted, llamaKeys, silu } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, normsOnePlus, onePlus, queryKeyNorms } from "./gguf/targets.js";
import { fewerChoices, isSparse, mixture, sparseLayers } from "./mixture.js";
import { contextOf, type RotaryConfig, readRope } from "./rope.js";
import { decoderNamed, gatedMlp, headRules, normsInFront, selfAttention, typePerLayer } from "./standard.js";

const quarter = (config: RotaryConfig, path: string): RopeOptions => readRope(config, path, { isPartial: true, partial: 0.25 });

/** Qwen3-Next (Qwen 2025): transformers' Qwen3NextForCausalLM. */
export const qwen3Next: Family = defineFamily({
  className: "Qwen3NextForCausalLM",
  fields: {
    ...withDefaults(sizes, { ...deltaSizes, vocab_size: 151936, num_key_value_heads: 2 }),
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
  foreign: /^mtp\./,
  gguf: {
    architecture: "qwen3next",
    refuses: (config) => {
      if (!config.norm_topk_prob) return '"norm_topk_prob" is false';
      const layers = Array.from({ length: config.num_hidden_layers }, (_, layer) => layer);
      return layers.every((layer) => isSparse(layer, config)) ? null : "some layers have no experts";
    },
    keys: [
      ...llamaKeys,
      silu,
      ropeKeys(quarter, { dimensions: "always", isPartial: true }),
      deltaKeys<DeltaSizes & Pick<Sizes, "num_hidden_layers"> & NetLength>(isLinear),
      ...expertKeys("num_experts"),
      expertWidth,
      counted("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
      biasField("attention_bias", "attn_q.bias"),
    ],
    layer: (config) => ({
      ...normsOnePlus({ ...llamaNames, ...queryKeyNorms, ...gatedNames }),
      ...fusedNet(config),
      ...expertNames("mlp"),
      ...sharedExpert("mlp.shared_expert"),
      "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    }),
    model: () => ({ norm: onePlus("output_norm") }),
  },
  decoder: (config, path) => {
    const rope = quarter(config, path);
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
