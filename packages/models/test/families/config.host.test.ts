import { CheckpointError } from "@lowrank/tensor";
import { describe, expect, test } from "vitest";
import { readFamily } from "../../src/families/read.js";
import { families } from "../../src/families/table.js";

type Json = Readonly<Record<string, unknown>>;

const sizes: Json = {
  vocab_size: 11,
  hidden_size: 16,
  intermediate_size: 8,
  num_hidden_layers: 4,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 8,
  max_position_embeddings: 32,
};
const read = (type: string, fields: Json = {}) => readFamily({ ...sizes, model_type: type, ...fields }, "config.json");

describe("a known field with a value that is not supported is refused by name", () => {
  const cases: readonly (readonly [type: string, fields: Json, says: RegExp])[] = [
    [
      "llama",
      { rope_scaling: { rope_type: "spiral" } },
      /"rope_scaling" has the type "spiral", supported are default, linear, dynamic, yarn/,
    ],
    ["llama", { partial_rotary_factor: 0.5 }, /"partial_rotary_factor" is 0\.5, only 1 is supported/],
    ["llama", { hidden_act: "swiglu" }, /"hidden_act" is "swiglu", not one of/],
    ["llama", { rope_scaling: { rope_type: "yarn", factor: "4" } }, /"rope_scaling\.factor" is "4", not a number/],
    ["llama", { rope_scaling: { rope_type: "longrope", short_factor: [1, 2] } }, /"rope_scaling\.long_factor" is missing/],
    ["llama", { head_dim: 5 }, /"head_dim" 5 is odd/],
    ["phi3", { rope_scaling: { type: "su", short_factor: [1], long_factor: [1] } }, /"rope_scaling" has 1 factors, for 4 pairs/],
    [
      "qwen3",
      { layer_types: ["full_attention", "chunked_attention", "full_attention", "full_attention"] },
      /"layer_types" is .*chunked_attention.* not a list of full_attention and sliding_attention/,
    ],
    ["qwen2", { layer_types: ["full_attention"] }, /"layer_types" has 1 entries for 4 layers/],
    ["lfm2", { layer_types: ["conv"] }, /"layer_types" has 1 entries for 4 layers/],
    [
      "qwen3_5_text",
      { layer_types: ["conv", "conv", "conv", "conv"] },
      /"layer_types" is .* not a list of linear_attention and full_attention/,
    ],
    ["qwen3_next", { layer_types: ["full_attention"] }, /"layer_types" has 1 entries for 4 layers/],
    ["gpt_oss", { layer_types: ["full_attention"] }, /"layer_types" has 1 entries for 4 layers/],
    ["mixtral", { num_experts_per_tok: 9 }, /"num_experts_per_tok" 9 is more than "num_local_experts" 8/],
    ["deepseek_v3", { n_routed_experts: 9 }, /there are 9 experts, not a multiple of "n_group" 8/],
    ["deepseek_v3", { topk_method: "greedy" }, /"topk_method" is "greedy", not "noaux_tc", the only one that is supported/],
    ["gpt_oss", { swiglu_limit: 6 }, /"swiglu_limit" is 6, not 7, the only one that is supported/],
    [
      "mixtral",
      { per_layer_config: { "1": { head_dim: 4 } } },
      /"per_layer_config" is .*, not null or \{\}: layers with fields of their own/,
    ],
    [
      "gemma4_text",
      { per_layer_config: { "1": { sliding_window: 4 } } },
      /"per_layer_config" is .*, not "head_dim" and "num_key_value_heads" by layer/,
    ],
    ["falcon_h1", { mamba_d_ssm: 7, mamba_n_heads: 2 }, /"mamba_n_heads" 2 does not divide a Mamba's width of 7/],
    ["falcon_h1", { ssm_multipliers: [1, 2] }, /"ssm_multipliers" has 2 numbers, not 5/],
    ["gemma4_text", { enable_moe_block: true }, /"enable_moe_block" is true and "num_experts" is null/],
    ["gemma3n_text", { activation_sparsity_pattern: [0.5] }, /"activation_sparsity_pattern" has 1 entries for 4 layers/],
    [
      "gemma3_text",
      { use_bidirectional_attention: true },
      /"use_bidirectional_attention" is true, not false, the only one that is supported/,
    ],
    ["gemma2", { attn_logit_softcapping: "50" }, /"attn_logit_softcapping" is "50", not a number/],
    ["smollm3", { no_rope_layers: [1, 2, 1, 1] }, /"no_rope_layers" is \[1,2,1,1\], not a list of 0 and 1/],
    ["smollm3", { no_rope_layers: [1] }, /"no_rope_layers" has 1 entries for 4 layers/],
    ["mistral", { num_attention_heads: 3, num_key_value_heads: 2 }, /"num_attention_heads" 3 is not a multiple of "num_key_value_heads" 2/],
    ["granite", { logits_scaling: 0 }, /"logits_scaling" is 0, not a number above 0/],
    ["gpt_neox", { rotary_pct: 0.375 }, /"partial_rotary_factor" 0\.375 lets 3 of a head's 8 numbers turn, and they turn by pairs/],
    ["phi", { hidden_act: "swiglu" }, /"hidden_act" is "swiglu", not one of/],
    ["exaone4", { sliding_window_pattern: "LGX" }, /"sliding_window_pattern" is "LGX", not a whole number, or letters L and G/],
    ["cohere2", { layer_types: ["full_attention"] }, /"layer_types" has 1 entries for 4 layers/],
    ["cohere", { rope_scaling: { type: "spiral" } }, /"rope_scaling" has the type "spiral"/],
    ["starcoder2", { use_bias: "yes" }, /"use_bias" is "yes", not true or false/],
  ];
  test.each(cases)("%s %j", (type, fields, says) => {
    expect(() => read(type, fields)).toThrow(CheckpointError);
    expect(() => read(type, fields)).toThrow(says);
  });
});

test("fields that no table lists are named, those that change nothing are not", () => {
  const { unknown } = read("qwen2", { use_cache: true, torch_dtype: "bfloat16", attention_dropout: 0.1, mystery: 1, layer_scale: 2 });
  expect(unknown).toEqual(["mystery", "layer_scale"]);
  const full_attention = { rope_type: "linear", factor: 2, rope_theta: 100, slope: 3 };
  const rope_parameters = { full_attention, sliding_attention: { rope_type: "default", mrope_section: [1, 2] } };
  expect(read("gemma3_text", { rope_parameters }).unknown).toEqual(["rope_parameters.full_attention.slope"]);
});

test("sizes of GPT-2 under the usual names stay there, so that what is saved has them", () => {
  const { config, unknown } = readFamily({ model_type: "gpt2", hidden_size: 24, num_hidden_layers: 3 }, "config.json");
  expect(config).toMatchObject({ hidden_size: 24, n_embd: 24, num_hidden_layers: 3, n_layer: 3 });
  expect(unknown).toEqual([]);
});

test("every family refuses a config without sizes, and says which are missing", () => {
  for (const [type, { className }] of Object.entries(families)) {
    if (type === "gpt2") continue; // has a default for each
    expect(() => readFamily({ model_type: type }, "config.json"), className).toThrow(/is missing|not/);
  }
});

describe("positions that a model looks at", () => {
  const context = (scaling: Json): number => read("llama", { rope_theta: 100, rope_scaling: scaling }).options.contextLength;
  test("are those of the config", () => expect(context({ rope_type: "linear", factor: 2 })).toBe(32));
  test("reach as far as dynamic and yarn stretch them", () => {
    expect(context({ rope_type: "dynamic", factor: 2 })).toBe(64);
    expect(context({ rope_type: "yarn", factor: 4, original_max_position_embeddings: 32 })).toBe(128);
    expect(context({ rope_type: "yarn", factor: 4, original_max_position_embeddings: 4 })).toBe(32);
  });
});
