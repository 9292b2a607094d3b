import { count, flag } from "../schema.js";
import { type DeltaSizes, deltaDecoder, deltaFields, deltaRules, gatedExperts, isLinear, quarterRope } from "./delta.js";
import { defineFamily, type Family } from "./family.js";
import { only, type Sizes } from "./fields.js";
import { deltaKeys, fusedNet, gatedNames, type NetLength } from "./gguf/delta.js";
import { expertKeys, expertNames, expertWidth, sharedExpert } from "./gguf/experts.js";
import { biasField, counted, llamaKeys, silu } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, normsOnePlus, onePlus, queryKeyNorms } from "./gguf/targets.js";
import { fewerChoices, isSparse, sparseLayers } from "./mixture.js";
import { gatedMlp, headRules, typePerLayer } from "./standard.js";

/** Qwen3-Next (Qwen 2025): transformers' Qwen3NextForCausalLM. */
export const qwen3Next: Family = defineFamily({
  className: "Qwen3NextForCausalLM",
  fields: {
    ...deltaFields({ vocab_size: 151936, num_key_value_heads: 2 }),
    ...sparseLayers,
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
      ropeKeys(quarterRope, { dimensions: "always", isPartial: true }),
      deltaKeys<DeltaSizes & Pick<Sizes, "num_hidden_layers"> & NetLength>(isLinear),
      ...expertKeys("num_experts"),
      expertWidth,
      counted("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
      biasField("attention_bias", "attn_q.bias", "without"),
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
    const sparse = gatedExperts(config, { isNormalized: config.norm_topk_prob });
    return deltaDecoder(config, path, "fused", (layer) => (isSparse(layer, config) ? sparse : gatedMlp(config)));
  },
});
