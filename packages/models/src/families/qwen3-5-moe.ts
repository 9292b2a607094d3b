import { count } from "../schema.js";
import { deltaDecoder, deltaFields, deltaRules, gatedExperts } from "./delta.js";
import { defineFamily, type Family } from "./family.js";
import { only } from "./fields.js";
import { fewerChoices } from "./mixture.js";
import { headRules, typePerLayer } from "./standard.js";

const { intermediate_size: _inner, ...fields } = deltaFields({ vocab_size: 248320, num_key_value_heads: 2 });

/** Qwen3.5's text model with experts in every layer: transformers' Qwen3_5MoeForCausalLM. PEFT translates no names of its experts' layers. */
export const qwen35Moe: Family = defineFamily({
  className: "Qwen3_5MoeForCausalLM",
  fields: {
    ...fields,
    num_experts: count(256),
    num_experts_per_tok: count(8),
    moe_intermediate_size: count(512),
    shared_expert_intermediate_size: count(512),
    output_router_logits: only(false),
  },
  rules: [...headRules, typePerLayer, ...deltaRules, fewerChoices("num_experts_per_tok", "num_experts")],
  foreign: /^mtp\./,
  prefixes: [
    ["", "model."],
    ["model.language_model.", "model."],
  ],
  remarks: ["mamba_ssm_dtype", "attn_output_gate", "mlp_only_layers", "mtp_num_hidden_layers", "mtp_use_dedicated_embeddings"],
  decoder: (config, path) => {
    const experts = gatedExperts(config, { stored: { kind: "each", gate: "gate_proj", up: "up_proj", down: "down_proj" } });
    return deltaDecoder(config, path, "apart", () => experts);
  },
});
