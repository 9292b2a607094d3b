// Random config.json files of every model family, by a seed: small sizes, options at the edges of what the families allow, both layouts of the
// rotary parameters, fields that are absent or null.

import {
  activations,
  bias,
  deltaModel,
  dice,
  each,
  gemma3Of,
  layerTypes,
  mambaOf,
  moe,
  perhaps,
  qwenExperts,
  rope,
  ropeOf,
  ropes,
  sharedExperts,
  sizes,
  windowOf,
} from "./config-fields.mjs";

/** @typedef {import("./config-fields.mjs").Json} Json */
/** @typedef {import("./config-fields.mjs").Dice} Dice */

/** @type {Readonly<Record<string, (d: Dice) => Json>>} */
const texts = {
  cohere: (d) => {
    const own = sizes(d, { eps: "layer_norm_eps" });
    return { ...own, ...rope(d, own), ...bias(d, "attention_bias", "use_qk_norm"), ...perhaps(d, "logit_scale", d.number(0.1, 1), true) };
  },
  cohere2: (d) => {
    const own = sizes(d, { eps: "layer_norm_eps" });
    const types = d.chance(2) ? { layer_types: layerTypes(d, own) } : perhaps(d, "sliding_window_pattern", d.between(1, 3));
    return {
      ...own,
      ...rope(d, own),
      ...types,
      ...bias(d, "attention_bias"),
      ...perhaps(d, "logit_scale", d.number(0.1, 1)),
      sliding_window: windowOf(d),
    };
  },
  deepseek_v3: (d) => {
    const { head_dim: _, ...own } = /** @type {Json} */ (sizes(d, { headDim: "none" }));
    const groups = d.pick([1, 2, 3]);
    const inGroup = d.between(2, 4);
    const chosen = d.between(1, groups);
    const turned = 2 * d.between(1, 4);
    return {
      ...own,
      num_key_value_heads: own["num_attention_heads"],
      ...rope(d, own, { head: turned }),
      ...bias(d, "attention_bias", "rope_interleave", "norm_topk_prob"),
      q_lora_rank: d.pick([null, 3, 8]),
      kv_lora_rank: d.between(2, 8),
      qk_nope_head_dim: d.between(1, 8),
      qk_rope_head_dim: turned,
      v_head_dim: d.between(1, 9),
      n_routed_experts: groups * inGroup,
      n_shared_experts: d.between(1, 2),
      moe_intermediate_size: d.between(2, 9),
      first_k_dense_replace: d.between(0, 3),
      n_group: groups,
      topk_group: chosen,
      num_experts_per_tok: d.between(1, Math.min(chosen * inGroup, 5)),
      routed_scaling_factor: d.pick([1.5, 2.5, 0.3]),
    };
  },
  ernie4_5: (d) => {
    const own = sizes(d);
    return { ...own, ...("head_dim" in own ? {} : { head_dim: 8 }), ...rope(d, { head_dim: 8, ...own }), ...bias(d, "use_bias") };
  },
  exaone4: (d) => {
    const own = sizes(d);
    const window = d.pick([null, windowOf(d), windowOf(d)]);
    const drawn = d.chance(2)
      ? { layer_types: layerTypes(d, own) }
      : perhaps(d, "sliding_window_pattern", d.pick([1, 2, 3, "LG", "LLG", "G", "L"]));
    const types = window === null ? { layer_types: layerTypes(d, own, ["full_attention"]) } : drawn;
    return { ...own, ...rope(d, own), sliding_window: window, ...types };
  },
  falcon_h1: (d) => {
    const own = sizes(d);
    const mamba = mambaOf(d, own);
    const given = d.chance(2) ? { mamba_d_ssm: null } : { mamba_d_ssm: mamba.mamba_n_heads * d.between(1, 6) };
    const head = given.mamba_d_ssm === null ? {} : { mamba_d_head: d.chance(2) ? "auto" : given.mamba_d_ssm / mamba.mamba_n_heads };
    return {
      ...own,
      ...rope(d, own),
      ...mamba,
      ...given,
      ...head,
      ...bias(d, "attention_bias", "mlp_bias", "projectors_bias", "mamba_rms_norm", "mamba_norm_before_gate"),
      ...perhaps(d, "embedding_multiplier", d.number(0.5, 3)),
      ...perhaps(d, "lm_head_multiplier", d.number(0.5, 3)),
      ...perhaps(d, "attention_in_multiplier", d.number(0.5, 3)),
      ...perhaps(d, "attention_out_multiplier", d.number(0.5, 3)),
      ...perhaps(d, "key_multiplier", d.number(0.5, 3)),
      ...perhaps(d, "ssm_in_multiplier", d.number(0.5, 3)),
      ...perhaps(d, "ssm_out_multiplier", d.number(0.5, 3)),
      ...perhaps(d, "mlp_multipliers", [d.number(0.5, 2), d.number(0.5, 2)], true),
      ...perhaps(
        d,
        "ssm_multipliers",
        each(5, () => d.number(0.5, 2)),
        true,
      ),
    };
  },
  gemma: (d) => {
    const own = sizes(d, { headDim: "given" });
    return {
      ...own,
      ...rope(d, own),
      ...bias(d, "attention_bias"),
      ...perhaps(d, "hidden_activation", d.pick([null, "gelu_pytorch_tanh"])),
    };
  },
  gemma2: (d) => {
    const own = sizes(d, { headDim: "given", act: "hidden_activation" });
    return {
      ...own,
      ...rope(d, own),
      ...bias(d, "attention_bias"),
      ...perhaps(d, "layer_types", layerTypes(d, own), true),
      sliding_window: windowOf(d),
      query_pre_attn_scalar: d.pick([8, 24, 256]),
      ...perhaps(d, "attn_logit_softcapping", d.number(1, 60), true),
      ...perhaps(d, "final_logit_softcapping", d.number(1, 60), true),
    };
  },
  gemma3_text: (d) => {
    const own = sizes(d, { headDim: "given", act: null });
    return { ...own, ...gemma3Of(d, own) };
  },
  gemma3n_text: (d) => {
    const layers = d.between(1, 6);
    const own = sizes(d, { headDim: "given", act: null, layers });
    const streams = d.between(1, 4);
    const types = each(layers, () => d.pick(["sliding_attention", "full_attention"]));
    // A layer that shares needs one of its type in front.
    const shares = each(layers + 1, (i) => i).filter((i) =>
      types.slice(layers - i).every((type) => types.slice(0, layers - i).includes(type)),
    );
    const isWhole = d.chance(3);
    return {
      ...own,
      intermediate_size: d.chance(2) ? d.between(3, 20) : each(layers, () => d.between(3, 20)),
      ...perhaps(d, "hidden_activation", d.pick(activations)),
      ...bias(d, "attention_bias", "altup_correct_scale"),
      ...(isWhole ? { num_kv_shared_layers: 0, layer_types: null } : { layer_types: types, num_kv_shared_layers: d.pick(shares) }),
      sliding_window: windowOf(d),
      hidden_size_per_layer_input: d.between(1, 6),
      vocab_size_per_layer_input: d.pick([own.vocab_size, own.vocab_size + 4]),
      laurel_rank: d.between(1, 5),
      altup_num_inputs: streams,
      altup_active_idx: d.below(streams),
      ...perhaps(d, "altup_coef_clip", d.pick([120.5, 0.05])),
      ...perhaps(
        d,
        "activation_sparsity_pattern",
        each(layers, () => d.pick([0.01, 0.95, 0.5, 0.2])),
        true,
      ),
      ...perhaps(d, "final_logit_softcapping", d.number(2, 40)),
      ...(d.chance(2)
        ? { rope_parameters: ropes(d, own) }
        : {
            ...perhaps(d, "rope_theta", 900),
            ...perhaps(d, "rope_local_base_freq", 40),
            ...(d.chance(3) && { rope_scaling: { rope_type: "linear", factor: 2 } }),
          }),
    };
  },
  gemma4_text: (d) => {
    const layers = d.between(1, 6);
    const own = sizes(d, { headDim: "given", act: "hidden_activation", layers });
    const types = [...each(layers - 1, () => d.pick(["sliding_attention", "full_attention"])), "full_attention"];
    const shares = each(layers + 1, (i) => i).filter((i) =>
      types.slice(layers - i).every((type) => types.slice(0, layers - i).includes(type)),
    );
    const { count, choices } = moe(d);
    const global = 4 * d.between(1, 4);
    const kinds = ["proportional", "default", "linear"];
    return {
      ...own,
      ...bias(d, "attention_bias", "attention_k_eq_v", "use_double_wide_mlp"),
      layer_types: types,
      num_kv_shared_layers: d.pick(shares),
      sliding_window: windowOf(d),
      global_head_dim: global,
      ...perhaps(d, "num_global_key_value_heads", d.pick([1, own.num_attention_heads]), true),
      hidden_size_per_layer_input: d.pick([0, 2, 5]),
      vocab_size_per_layer_input: d.pick([own.vocab_size, own.vocab_size + 4]),
      ...perhaps(d, "final_logit_softcapping", d.number(2, 40), true),
      ...(d.chance(2) && { enable_moe_block: true, num_experts: count, top_k_experts: choices, moe_intermediate_size: d.between(2, 7) }),
      ...(d.chance(2) && {
        rope_parameters: {
          full_attention: { ...ropeOf(d, own, { kinds, head: global }), rope_theta: d.pick([10000, 1000000, 50]) },
          sliding_attention: { rope_type: "default", rope_theta: d.pick([10000, 30]) },
        },
      }),
    };
  },
  glm4: (d) => {
    const own = sizes(d, { headDim: "given" });
    const even = { ...own, head_dim: 8 * d.between(1, 2) };
    return { ...even, ...rope(d, even, { partial: true, share: 0.5 }), ...bias(d, "attention_bias") };
  },
  gpt2: (d) => {
    const heads = d.between(1, 4);
    return {
      vocab_size: d.between(19, 60),
      n_embd: heads * d.between(2, 9),
      n_head: heads,
      n_layer: d.between(1, 3),
      n_positions: d.between(12, 48),
      ...perhaps(d, "n_inner", d.between(3, 30), true),
      ...perhaps(d, "activation_function", d.pick(activations)),
      layer_norm_epsilon: d.pick([1e-5, 1e-2]),
      ...bias(d, "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "tie_word_embeddings", "reorder_and_upcast_attn"),
      bos_token_id: 1,
      eos_token_id: 2,
    };
  },
  gpt_neox: (d) => {
    const { num_key_value_heads: _, ...own } = sizes(d, { eps: "layer_norm_eps", headDim: "none" });
    const wide = { ...own, hidden_size: own.num_attention_heads * 8 * d.between(1, 2) };
    const turning = d.chance(2)
      ? rope(d, wide, { partial: true, share: 0.25, kinds: ["default", "linear", "dynamic", "yarn", "llama3"] })
      : { rotary_pct: d.pick([0.25, 0.5, 1]), ...perhaps(d, "rotary_emb_base", d.pick([10000, 50])) };
    return { ...wide, ...turning, ...bias(d, "attention_bias", "use_parallel_residual") };
  },
  gpt_oss: (d) => {
    const own = sizes(d, { headDim: "given" });
    const { count, choices } = moe(d);
    return {
      ...own,
      ...rope(d, own, { kinds: ["default", "yarn", "yarn", "linear"] }),
      ...bias(d, "attention_bias"),
      ...perhaps(d, "layer_types", layerTypes(d, own), true),
      sliding_window: windowOf(d),
      num_local_experts: count,
      num_experts_per_tok: choices,
    };
  },
  granite: (d) => {
    const own = sizes(d);
    return {
      ...own,
      ...rope(d, own),
      ...bias(d, "attention_bias", "mlp_bias"),
      ...perhaps(d, "embedding_multiplier", d.number(0.5, 12)),
      ...perhaps(d, "attention_multiplier", d.number(0.05, 1)),
      ...perhaps(d, "residual_multiplier", d.number(0.1, 1)),
      ...perhaps(d, "logits_scaling", d.number(0.5, 8)),
    };
  },
  granitemoehybrid: (d) => {
    const own = sizes(d, { headDim: "none" });
    const { count, choices } = d.chance(2) ? { count: 0, choices: 0 } : moe(d);
    return {
      ...own,
      ...(d.chance(2) && rope(d, own)),
      ...mambaOf(d, own),
      ...bias(d, "attention_bias"),
      layer_types: layerTypes(d, own, d.chance(2) ? ["mamba", "attention"] : ["linear_attention", "full_attention"]),
      ...perhaps(d, "position_embedding_type", d.pick(["rope", "nope"]), true),
      num_local_experts: count,
      num_experts_per_tok: choices,
      shared_intermediate_size: d.between(3, 15),
      ...perhaps(d, "embedding_multiplier", d.number(0.5, 12)),
      ...perhaps(d, "attention_multiplier", d.number(0.05, 1)),
      ...perhaps(d, "residual_multiplier", d.number(0.1, 1)),
      ...perhaps(d, "logits_scaling", d.number(0.5, 8)),
    };
  },
  hunyuan_v1_dense: (d) => {
    const own = sizes(d);
    const turning = /** @type {any} */ (rope(d, own, { kinds: ["default", "linear", "dynamic", "yarn", "llama3"] }));
    const place = turning.rope_scaling ?? turning.rope_parameters;
    if (place && (place.type ?? place.rope_type) === "dynamic" && d.chance(2)) place.alpha = d.pick([1, 1000, 50.5]);
    return { ...own, ...turning, ...bias(d, "attention_bias") };
  },
  lfm2: (d) => {
    const { rms_norm_eps: norm_eps, ...own } = /** @type {any} */ (sizes(d, { headDim: "none", act: null }));
    const full = each(own.num_hidden_layers, (i) => i).filter(() => d.chance(2));
    return {
      ...own,
      norm_eps,
      ...rope(d, own),
      conv_L_cache: d.between(2, 5),
      ...bias(d, "conv_bias", "block_auto_adjust_ff_dim"),
      ...(d.chance(2) ? { layer_types: layerTypes(d, own, ["conv", "full_attention"]) } : perhaps(d, "full_attn_idxs", full)),
      block_multiple_of: d.pick([1, 4, 16]),
      ...perhaps(d, "block_ffn_dim_multiplier", d.pick([1, 0.7, 1.3])),
      ...(d.chance(4) && { block_ff_dim: d.between(4, 30) }),
      ...(d.chance(4) && { tie_embedding: d.chance(2) }),
    };
  },
  lfm2_moe: (d) => {
    const { rms_norm_eps: norm_eps, ...own } = /** @type {any} */ (sizes(d, { headDim: "none", act: null }));
    const { count, choices } = moe(d);
    return {
      ...own,
      norm_eps,
      ...rope(d, own),
      conv_L_cache: d.between(2, 5),
      layer_types: layerTypes(d, own, ["conv", "full_attention"]),
      ...bias(d, "conv_bias", "use_expert_bias", "norm_topk_prob"),
      num_dense_layers: d.below(own.num_hidden_layers + 1),
      num_experts: count,
      num_experts_per_tok: choices,
      moe_intermediate_size: d.between(2, 9),
      routed_scaling_factor: d.pick([1.5, 0.3]),
    };
  },
  llama: (d) => {
    const own = sizes(d);
    return { ...own, ...rope(d, own), ...bias(d, "attention_bias", "mlp_bias") };
  },
  ministral3: (d) => {
    const own = sizes(d, { headDim: "given" });
    const turning = /** @type {any} */ (rope(d, own, { kinds: ["yarn", "yarn", "default", "linear"] }));
    // transformers multiplies whether a file has both or not.
    if (turning.rope_parameters)
      Object.assign(turning.rope_parameters, {
        llama_4_scaling_beta: d.pick([0.1, 0.7]),
        original_max_position_embeddings: d.between(3, 30),
      });
    else
      turning.rope_scaling = {
        rope_type: "default",
        ...turning.rope_scaling,
        llama_4_scaling_beta: 0.3,
        original_max_position_embeddings: d.between(3, 30),
      };
    return { ...own, ...turning, ...perhaps(d, "sliding_window", windowOf(d), true) };
  },
  mistral: (d) => {
    const own = sizes(d);
    return { ...own, ...rope(d, own), ...perhaps(d, "sliding_window", windowOf(d), true) };
  },
  mixtral: (d) => {
    const own = sizes(d);
    const { count, choices } = moe(d);
    return {
      ...own,
      ...rope(d, own),
      ...perhaps(d, "sliding_window", windowOf(d), true),
      num_local_experts: count,
      num_experts_per_tok: choices,
    };
  },
  nanochat: (d) => {
    const own = sizes(d);
    return { ...own, ...rope(d, own), ...bias(d, "attention_bias"), ...perhaps(d, "final_logit_softcapping", d.number(2, 40), true) };
  },
  nemotron_h: (d) => {
    const { rms_norm_eps: layer_norm_epsilon, ...own } = /** @type {any} */ (
      sizes(d, { headDim: "given", act: "mlp_hidden_act", layers: d.between(1, 5) })
    );
    const mamba = mambaOf(d, own);
    const experts = d.pick([1, 2]);
    const inGroup = d.between(2, 3);
    const chosen = d.between(1, experts);
    const types = each(own.num_hidden_layers, () => d.pick(["mamba", "moe", "attention", "mlp"]));
    // The class ties nothing.
    delete own.tie_word_embeddings;
    const letters = /** @type {Record<string, string>} */ ({ mamba: "M", moe: "E", attention: "*", mlp: "-" });
    return {
      ...own,
      layer_norm_epsilon,
      ...(d.chance(2) ? { layers_block_type: types } : { hybrid_override_pattern: types.map((type) => letters[type]).join("") }),
      mamba_num_heads: mamba.mamba_n_heads,
      mamba_head_dim: d.between(1, 6) * mamba.mamba_n_groups,
      n_groups: mamba.mamba_n_groups,
      ssm_state_size: mamba.mamba_d_state,
      conv_kernel: mamba.mamba_d_conv,
      chunk_size: mamba.mamba_chunk_size,
      ...bias(d, "use_bias", "use_conv_bias", "mlp_bias", "norm_topk_prob"),
      ...perhaps(d, "time_step_min", d.pick([0.001, 0.3])),
      n_routed_experts: experts * inGroup,
      moe_intermediate_size: d.between(2, 9),
      moe_shared_expert_intermediate_size: d.between(2, 9),
      ...perhaps(d, "moe_latent_size", d.between(2, 6), true),
      num_experts_per_tok: d.between(1, chosen * inGroup),
      n_group: experts,
      topk_group: chosen,
      routed_scaling_factor: d.pick([1, 2.5]),
    };
  },
  olmo2: (d) => {
    const own = sizes(d, { headDim: "none" });
    return { ...own, ...rope(d, own), ...bias(d, "attention_bias") };
  },
  olmo3: (d) => {
    const own = sizes(d, { headDim: "none" });
    const turning = d.chance(2)
      ? { rope_parameters: ropes(d, own) }
      : {
          ...perhaps(d, "rope_theta", 900),
          ...(d.chance(2) && { rope_scaling: { rope_type: "yarn", factor: 4, original_max_position_embeddings: 7 } }),
        };
    return {
      ...own,
      ...turning,
      ...bias(d, "attention_bias"),
      ...perhaps(d, "layer_types", layerTypes(d, own), true),
      sliding_window: windowOf(d),
    };
  },
  phi: (d) => {
    const own = sizes(d, { eps: "layer_norm_eps", headDim: "none" });
    const wide = { ...own, hidden_size: own.num_attention_heads * 8 * d.between(1, 2) };
    return { ...wide, ...rope(d, wide, { partial: true, share: 0.5 }), ...bias(d, "qk_layernorm") };
  },
  phi3: (d) => {
    const own = sizes(d, { headDim: "none" });
    const wide = { ...own, hidden_size: own.num_attention_heads * 8 * d.between(1, 2) };
    const turning = /** @type {any} */ (rope(d, wide, { partial: true, kinds: ["default", "longrope", "longrope"] }));
    const place = turning.rope_scaling ?? turning.rope_parameters;
    const original = place?.original_max_position_embeddings;
    return {
      ...wide,
      ...turning,
      ...(original !== undefined && { original_max_position_embeddings: original }),
      ...perhaps(d, "sliding_window", windowOf(d), true),
    };
  },
  qwen2: (d) => qwen(d, sizes(d, { headDim: "none" })),
  qwen3: (d) => {
    const own = sizes(d, { headDim: "given" });
    return { ...qwen(d, own), ...bias(d, "attention_bias") };
  },
  qwen3_5_text: (d) => deltaModel(d, sizes(d, { headDim: "given" })),
  qwen3_5_moe_text: (d) => {
    const { intermediate_size: _, ...own } = /** @type {any} */ (sizes(d, { headDim: "given" }));
    return { ...deltaModel(d, own), ...sharedExperts(d) };
  },
  qwen3_moe: (d) => {
    const own = sizes(d, { headDim: "given" });
    const window = d.chance(2) ? { use_sliding_window: true, sliding_window: windowOf(d) } : {};
    return {
      ...own,
      ...rope(d, own),
      ...window,
      ...bias(d, "attention_bias", "norm_topk_prob"),
      ...qwenExperts(d),
      ...sparseOf(d, own),
    };
  },
  qwen3_next: (d) => {
    const own = sizes(d, { headDim: "given" });
    return { ...deltaModel(d, own, "norm_topk_prob"), ...sharedExperts(d), ...sparseOf(d, own) };
  },
  smollm3: (d) => {
    const own = sizes(d, { headDim: "none" });
    const layers = own.num_hidden_layers;
    return {
      ...own,
      ...rope(d, own),
      ...bias(d, "attention_bias", "mlp_bias"),
      ...(d.chance(2) ? { use_sliding_window: true, sliding_window: windowOf(d) } : {}),
      ...(d.chance(2) ? { no_rope_layers: each(layers, () => d.below(2)) } : perhaps(d, "no_rope_layer_interval", d.between(1, 3))),
      ...(d.chance(3) && { layer_types: layerTypes(d, own), sliding_window: windowOf(d) }),
    };
  },
  stablelm: (d) => {
    const own = sizes(d, { eps: "layer_norm_eps", headDim: "none" });
    const wide = { ...own, hidden_size: own.num_attention_heads * 8 * d.between(1, 2) };
    return {
      ...wide,
      ...rope(d, wide, { partial: true, share: 0.25 }),
      ...bias(d, "use_qkv_bias", "qk_layernorm", "use_parallel_residual"),
    };
  },
  starcoder2: (d) => {
    const own = sizes(d, { eps: "norm_epsilon", headDim: "none" });
    return { ...own, ...rope(d, own), ...bias(d, "use_bias"), ...perhaps(d, "sliding_window", windowOf(d), true) };
  },
};

/** Dense layers among those with experts. @param {Dice} d @param {Json} config */
const sparseOf = (d, config) => ({
  ...perhaps(d, "decoder_sparse_step", d.pick([1, 2])),
  ...perhaps(d, "mlp_only_layers", d.pick([[], [0], [Number(config["num_hidden_layers"]) - 1]])),
});

/** @param {Dice} d @param {Json} own */
function qwen(d, own) {
  const layers = Number(own["num_hidden_layers"]);
  const has = d.chance(2);
  return {
    ...own,
    ...rope(d, own),
    ...(has
      ? { use_sliding_window: true, sliding_window: windowOf(d), max_window_layers: d.below(layers + 1) }
      : perhaps(d, "sliding_window", 4, true)),
    ...(d.chance(3) && { layer_types: layerTypes(d, own, has ? ["sliding_attention", "full_attention"] : ["full_attention"]) }),
  };
}

const siglip = {
  model_type: "siglip_vision_model",
  hidden_size: 8,
  intermediate_size: 8,
  num_hidden_layers: 1,
  num_attention_heads: 1,
  num_channels: 3,
  image_size: 8,
  patch_size: 4,
};
const pixtral = {
  model_type: "pixtral",
  hidden_size: 8,
  intermediate_size: 8,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_channels: 3,
  image_size: 8,
  patch_size: 4,
  head_dim: 4,
};
const qwenTower = {
  depth: 1,
  hidden_size: 8,
  intermediate_size: 8,
  num_heads: 1,
  patch_size: 4,
  temporal_patch_size: 1,
  spatial_merge_size: 1,
  out_hidden_size: 8,
  num_position_embeddings: 4,
  deepstack_visual_indexes: [],
};

/** A model that sees as well, around a text model. @param {Dice} d @param {string} type @param {Json} around */
function outer(d, type, around) {
  const text = /** @type {(d: Dice) => Json} */ (texts[type])(d);
  const tied = text["tie_word_embeddings"];
  return { ...around, ...(tied !== undefined && { tie_word_embeddings: tied }), text_config: { model_type: type, ...text } };
}

/** @type {Readonly<Record<string, (d: Dice) => Json>>} */
const wholes = {
  gemma3: (d) =>
    outer(d, "gemma3_text", {
      vision_config: siglip,
      mm_tokens_per_image: 4,
      image_token_index: 9,
      boi_token_index: 7,
      eoi_token_index: 8,
    }),
  mistral3: (d) => outer(d, d.pick(["mistral", "ministral3"]), { vision_config: pixtral, image_token_index: 9, spatial_merge_size: 1 }),
  qwen3_5: (d) =>
    outer(d, "qwen3_5_text", {
      vision_config: qwenTower,
      image_token_id: 9,
      video_token_id: 10,
      vision_start_token_id: 7,
      vision_end_token_id: 8,
    }),
  qwen3_5_moe: (d) =>
    outer(d, "qwen3_5_moe_text", {
      vision_config: qwenTower,
      image_token_id: 9,
      video_token_id: 10,
      vision_start_token_id: 7,
      vision_end_token_id: 8,
    }),
};

/** The families that there are configs of, by `model_type`. */
export const drawn = [...Object.keys(texts), ...Object.keys(wholes)].sort();

/** A seed of a family's own. @param {string} family @param {number} seed */
export const seedOf = (family, seed) =>
  [...family].reduce((sum, letter) => (Math.imul(sum, 31) + letter.charCodeAt(0)) % 2 ** 31, seed) >>> 0;

/** The config.json of a case. @param {string} family @param {number} seed @returns {Json} */
export function randomConfig(family, seed) {
  const make = texts[family] ?? wholes[family];
  if (!make) throw new Error(`There are no random configs of ${family}. Choose among ${drawn.join(", ")}.`);
  return { model_type: family, ...make(dice(seed)) };
}
