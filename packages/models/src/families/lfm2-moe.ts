import { count, countOrZero, flag, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { convDecoder, convFields, convMlp } from "./lfm2-layers.js";
import { fewerChoices, mixture } from "./mixture.js";
import { headRules, typePerLayer } from "./standard.js";

/** LFM2 with experts (Liquid AI 2025): transformers' Lfm2MoeForCausalLM. PEFT translates no names of its experts' layers. */
export const lfm2Moe: Family = defineFamily({
  className: "Lfm2MoeForCausalLM",
  fields: {
    ...convFields,
    intermediate_size: count(7168),
    moe_intermediate_size: count(1792),
    num_dense_layers: countOrZero(2),
    num_experts: count(32),
    num_experts_per_tok: count(4),
    use_expert_bias: flag(true),
    norm_topk_prob: flag(true),
    routed_scaling_factor: positive(1),
  },
  rules: [
    ...headRules,
    typePerLayer,
    fewerChoices("num_experts_per_tok", "num_experts"),
    ({ layer_types: types }) => (types === null ? '"layer_types" is missing' : null),
  ],
  prefixes: [["", "model."]],
  remarks: ["use_pos_enc", "theta", "conv_dim", "block_dim"],
  decoder: (config, path) => {
    const sparse = mixture({
      count: config.num_experts,
      choices: config.num_experts_per_tok,
      inner: config.moe_intermediate_size,
      activation: "silu",
      stored: { kind: "each", gate: "w1", up: "w3", down: "w2" },
      router: { name: "gate", ...(config.use_expert_bias && { correction: "expert_bias", storedCorrection: "../expert_bias" }) },
      routing: {
        kind: "sigmoid",
        choices: config.num_experts_per_tok,
        isNormalized: config.norm_topk_prob,
        epsilon: 1e-6,
        scale: config.routed_scaling_factor,
      },
    });
    const [dense, experts] = [convMlp(config.intermediate_size), { ...sparse, name: "feed_forward" }];
    return convDecoder(config, path, (layer) => (layer < config.num_dense_layers ? dense : experts));
  },
});
