// Fields that a config.json leaves out, or says under another name, mean what transformers has for them.
import { initModel, modelOutline } from "@lowrank/models";
import { type Device, device, tensor } from "@lowrank/tensor";
import { afterAll, beforeAll, expect, test } from "vitest";

type Json = Readonly<Record<string, unknown>>;

const sizes: Json = {
  vocab_size: 11,
  hidden_size: 16,
  intermediate_size: 6,
  num_hidden_layers: 2,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  max_position_embeddings: 32,
  initializer_range: 0.3,
};
const without = (...names: string[]): Json => Object.fromEntries(Object.entries(sizes).filter(([name]) => !names.includes(name)));
const experts = { num_local_experts: 3, num_experts_per_tok: 2 };
const few = { ...experts, head_dim: 4 };
const net = {
  full_attention_interval: 2,
  linear_num_key_heads: 1,
  linear_num_value_heads: 2,
  linear_key_head_dim: 4,
  linear_value_head_dim: 3,
};
const sparse = { num_experts: 3, num_experts_per_tok: 2, moe_intermediate_size: 4, shared_expert_intermediate_size: 3 };
const latent = {
  kv_lora_rank: 5,
  qk_nope_head_dim: 3,
  qk_rope_head_dim: 4,
  v_head_dim: 3,
  moe_intermediate_size: 4,
  first_k_dense_replace: 1,
};
const groups = { n_group: 2, topk_group: 1, num_experts_per_tok: 2 };
const streams = { head_dim: 4, laurel_rank: 2, hidden_size_per_layer_input: 3, vocab_size_per_layer_input: 11, num_kv_shared_layers: 0 };
const state = { mamba_n_heads: 4, mamba_d_state: 3, mamba_d_conv: 2 };
const granite = { ...state, num_local_experts: 0, num_experts_per_tok: 0, shared_intermediate_size: 5 };
const nemotron = { head_dim: 4, mamba_num_heads: 4, mamba_head_dim: 3, ssm_state_size: 3, layers_block_type: ["mamba", "attention"] };
const gemma4 = { head_dim: 4, vocab_size_per_layer_input: 11, hidden_size_per_layer_input: 0, global_head_dim: 16 };
const full = { rope_type: "proportional", partial_rotary_factor: 0.25, rope_theta: 1e6 };
const local = { rope_type: "default", rope_theta: 1e4 };
const yarn = { rope_type: "yarn", factor: 32, beta_fast: 32, beta_slow: 1, truncate: false, original_max_position_embeddings: 4096 };
/** Gemma 4's layers without a window, as transformers numbers them where there are more than ten. */
const layered = (digits: number): Json => ({
  ...{ num_hidden_layers: 11, layer_types: new Array(11).fill("full_attention") },
  per_layer_config: Object.fromEntries(Array.from({ length: 11 }, (_, layer) => [String(layer).padStart(digits, "0"), { head_dim: 6 }])),
});

/** A config as it is filed, what it means when everything is said, and what would show that it does not. */
const cases: readonly (readonly [type: string, filed: Json, meant: Json, other: Json])[] = [
  [
    "lfm2",
    { ...sizes, block_ffn_dim_multiplier: null, intermediate_size: 18 },
    { block_auto_adjust_ff_dim: false, intermediate_size: 12 },
    { block_ffn_dim_multiplier: 1 },
  ],
  ["mixtral", { ...sizes, ...experts }, { rms_norm_eps: 1e-5 }, { rms_norm_eps: 1e-6 }],
  ["mixtral", { ...sizes, num_experts: 3, num_experts_per_tok: 2 }, { num_local_experts: 3 }, { num_experts: 4 }],
  ["mixtral", { ...without("num_key_value_heads"), ...experts }, { num_key_value_heads: 8 }, { num_key_value_heads: 4 }],
  ["qwen3_moe", { ...without("num_key_value_heads"), ...sparse, head_dim: 4 }, { num_key_value_heads: 4 }, { num_key_value_heads: 8 }],
  ["gpt_oss", { ...sizes, ...experts }, { head_dim: 64 }, { head_dim: 4 }],
  ["gpt_oss", { ...sizes, ...few }, { rope_parameters: { ...yarn, rope_theta: 150000 } }, { rope_parameters: { rope_theta: 150000 } }],
  ["gpt_oss", { ...sizes, ...few, rope_theta: 500 }, { rope_parameters: { ...yarn, rope_theta: 500 } }, { rope_theta: 400 }],
  ["qwen3_5_text", { ...sizes, ...net }, { head_dim: 256 }, { head_dim: 8 }],
  ["qwen3_next", { ...sizes, ...net, ...sparse }, { head_dim: 256 }, { head_dim: 8 }],
  [
    "gemma3_text",
    without("num_attention_heads", "num_key_value_heads"),
    { num_attention_heads: 8, num_key_value_heads: 4 },
    { num_key_value_heads: 8 },
  ],
  ["gemma3n_text", { ...sizes, ...streams }, { final_logit_softcapping: 30 }, { final_logit_softcapping: null }],
  [
    "gemma4_text",
    { ...sizes, ...gemma4 },
    { rope_parameters: { full_attention: full, sliding_attention: local } },
    { rope_parameters: { full_attention: { ...full, partial_rotary_factor: 1 } } },
  ],
  [
    "gemma4_text",
    { ...sizes, ...gemma4, rope_parameters: { full_attention: { rope_type: "proportional", rope_theta: 500 } } },
    { rope_parameters: { full_attention: { ...full, rope_theta: 500, partial_rotary_factor: 1 } } },
    { rope_parameters: { full_attention: { ...full, rope_theta: 500 } } },
  ],
  ["gemma4_text", { ...sizes, ...gemma4, ...layered(2) }, layered(1), { per_layer_config: {} }],
  ["deepseek_v3", { ...sizes, ...latent, ...groups, num_local_experts: 4 }, { n_routed_experts: 4 }, { num_local_experts: 6 }],
  ["deepseek_v3", { ...sizes, ...latent, ...groups, n_routed_experts: 4 }, { q_lora_rank: 1536 }, { q_lora_rank: null }],
  [
    "granitemoehybrid",
    { ...sizes, ...granite, layer_types: ["attention", "mamba"] },
    { position_embedding_type: "nope" },
    { position_embedding_type: "rope" },
  ],
  [
    "granitemoehybrid",
    { ...sizes, ...granite, layers_block_type: ["mamba", "attention"] },
    { layer_types: ["mamba", "attention"] },
    { layers_block_type: ["mamba", "mamba"] },
  ],
  ["falcon_h1", { ...sizes, ...state, mamba_d_ssm: 12 }, { mamba_d_head: 3, rms_norm_eps: 1e-5 }, { mamba_d_ssm: null }],
  ["falcon_h1", { ...sizes, ...state, mamba_d_ssm: null }, { mamba_d_head: 8 }, { mamba_d_ssm: 12 }],
  ["nemotron_h", { ...sizes, ...nemotron, mamba_n_groups: 2 }, { n_groups: 2 }, { mamba_n_groups: 1 }],
  ["nemotron_h", { ...sizes, ...nemotron, n_groups: 2, mamba_dt_min: 0.9 }, { time_step_min: 0.9 }, { mamba_dt_min: 0.1 }],
  [
    "nemotron_h",
    { ...sizes, ...nemotron, n_groups: 2, attention_bias: true, sliding_window: 2 },
    { attention_bias: false, sliding_window: null },
    { use_bias: true },
  ],
];

let dev: Device;
beforeAll(async () => {
  dev = await device("reference");
});
afterAll(() => dev.dispose());

const shapesOf = (type: string, config: Json): readonly string[] =>
  [...modelOutline({ ...config, model_type: type }, { device: dev }).namedParameters()].map(([name, { shape }]) => `${name} ${shape}`);

async function logitsOf(type: string, config: Json): Promise<ArrayLike<number>> {
  const model = await initModel({ ...config, model_type: type }, { device: dev, seed: 3 });
  const logits = await model.forward(tensor([[3, 7, 1, 9]], { dtype: "i32", device: dev })).data();
  model.dispose();
  return logits;
}

test.each(cases.map(([type, filed, meant, other]) => ({ type, filed, meant, other, said: JSON.stringify(meant).slice(0, 60) })))(
  "$type means $said",
  async ({ type, filed, meant, other }) => {
    const all = { ...filed, ...meant };
    expect(shapesOf(type, filed)).toEqual(shapesOf(type, all));
    // Where sizes show it, nothing need be computed.
    if (String(shapesOf(type, { ...filed, ...other })) !== String(shapesOf(type, all))) return;
    const wanted = await logitsOf(type, all);
    expect(await logitsOf(type, filed)).toEqual(wanted);
    expect(await logitsOf(type, { ...filed, ...other })).not.toEqual(wanted);
  },
);
