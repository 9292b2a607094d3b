"""The cases of make_families.py: what each is about, the config it is made of, how config.json is laid out, the adapter, what the logits see.

`hub` rewrites config.json as checkpoints of 2023 to 2025 have it, without `drop` and with `put`; without it the file is transformers 5's.
"""
VOCAB = 27
SPELLED = 33  # of the cases with a tokenizer: 3 special tokens, space, newline, full stop, a to z, and one merge
ALL = dict(target_modules="all-linear")
QV = dict(target_modules=["q_proj", "v_proj"])


def text(kind, eps="rms_norm_eps", **more):
    sizes = dict(vocab_size=VOCAB, hidden_size=18, intermediate_size=13, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
                 max_position_embeddings=40, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    return {"model_type": kind, **sizes, eps: 4e-3, **more}


def rope(theta=300.0, **more):
    return dict(rope_parameters={"rope_theta": theta, "rope_type": "default", **more})


def case(about, cls, config, sees, lora=ALL, **more):
    return {"about": about, "class": cls, "config": config, "sees": sees, "lora": lora, "vocab": VOCAB, **more}


SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]

CASES = {
    # Llama and what differs from it by a few options.
    "llama-dynamic": case(
        "dynamic rope, as transformers 5 writes it, 4 tokens more than max_position_embeddings.", "LlamaForCausalLM",
        text("llama", head_dim=8, max_position_embeddings=16, **rope(100.0, rope_type="dynamic", factor=3.0)), tokens=20,
        sees={"rope_parameters.factor": 1.5}, lora=QV),
    "llama-yarn": case(
        "yarn with an attention factor of its own and without truncation, biases in the MLP alone.", "LlamaForCausalLM",
        text("llama", mlp_bias=True, num_key_value_heads=3,
             **rope(200.0, rope_type="yarn", factor=3.0, original_max_position_embeddings=13, beta_fast=3.0, beta_slow=0.3,
                    attention_factor=1.3, truncate=False)),
        hub=dict(drop=[], put={}), end=[2, 7],
        sees={"rope_scaling.attention_factor": 1.0, "rope_scaling.beta_slow": 1.0, "rope_scaling.truncate": True}),
    "llama-longrope": case(
        "longrope under Llama's name, within its original length: short factors.", "LlamaForCausalLM",
        text("llama", original_max_position_embeddings=20,
             **rope(150.0, rope_type="longrope", short_factor=[1.0, 1.5, 2.5], long_factor=[2.0, 4.0, 8.0], factor=2.0,
                    original_max_position_embeddings=20)),
        sees={"rope_parameters.short_factor": [1.0, 1.0, 1.0]}, lora=QV),
    "llama-dynamic-grows": case(
        "dynamic rope, behind whose max_position_embeddings the greedy continuation goes on: keys stay as they were turned.", "LlamaForCausalLM",
        text("llama", head_dim=8, max_position_embeddings=8, **rope(100.0, rope_type="dynamic", factor=3.0)), tokens=13,
        hub=dict(drop=[], put={}), sees={"rope_scaling.factor": 1.5}, lora=QV),
    "llama-longrope-grows": case(
        "longrope, whose long factors begin within the greedy continuation.", "LlamaForCausalLM",
        text("llama", original_max_position_embeddings=9,
             **rope(150.0, rope_type="longrope", short_factor=[1.0, 1.5, 2.5], long_factor=[2.0, 4.0, 8.0], factor=2.0,
                    original_max_position_embeddings=9)),
        sees={"rope_parameters.long_factor": [1.0, 1.0, 1.0]}, lora=QV),
    "qwen2": case(
        "windows by layer_types.", "Qwen2ForCausalLM",
        text("qwen2", num_hidden_layers=3, layer_types=SLIDING, use_sliding_window=True, sliding_window=4, tie_word_embeddings=True, **rope()),
        sees={"layer_types": ["full_attention"] * 3, "sliding_window": 6}, lora=QV),
    "qwen3": case(
        "head_dim apart from width / heads, biases, a window in the upper layer.", "Qwen3ForCausalLM",
        text("qwen3", vocab_size=SPELLED, head_dim=10, attention_bias=True, use_sliding_window=True, sliding_window=4, max_window_layers=1, **rope()),
        hub=dict(drop=[], put={"max_window_layers": 1}), vocab=SPELLED, sees={"use_sliding_window": False, "rms_norm_eps": 1e-1}),
    "mistral": case(
        "no window, as transformers 5 writes it.", "MistralForCausalLM",
        text("mistral", head_dim=14, num_attention_heads=2, sliding_window=None, tie_word_embeddings=True, **rope(50.0)),
        sees={"sliding_window": 4}, lora=QV),
    "ministral3": case(
        "yarn, and queries scaled by position; rope_parameters holds max_position_embeddings too.", "Ministral3ForCausalLM",
        text("ministral3", head_dim=6, max_position_embeddings=32,
             **rope(120.0, rope_type="yarn", factor=4.0, original_max_position_embeddings=4, beta_fast=3.0, beta_slow=0.25, mscale=1.0,
                    mscale_all_dim=0.7, llama_4_scaling_beta=0.6, max_position_embeddings=32)),
        sees={"rope_parameters.llama_4_scaling_beta": 0.0, "rope_parameters.mscale_all_dim": 1.0}, lora=QV),
    "mistral3": case(
        "the text model under text_config, beside a vision tower.", "Mistral3ForConditionalGeneration",
        dict(model_type="mistral3", image_token_index=25, tie_word_embeddings=False, spatial_merge_size=1,
             text_config=text("ministral3", head_dim=8, tie_word_embeddings=False,
                              **rope(120.0, rope_type="yarn", factor=4.0, original_max_position_embeddings=4, beta_fast=3.0, beta_slow=0.25,
                                     mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.5)),
             vision_config=dict(model_type="pixtral", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
                                num_channels=3, image_size=8, patch_size=4, head_dim=4)),
        sees={"text_config.rope_parameters.factor": 2.0}, lora=dict(target_modules=r".*language_model.*\.(q_proj|v_proj|down_proj)")),
    "smollm3": case(
        "no_rope_layer_interval, and a window in the layers without rope.", "SmolLM3ForCausalLM",
        text("smollm3", num_hidden_layers=3, no_rope_layer_interval=2, use_sliding_window=True, sliding_window=3, attention_bias=True,
             tie_word_embeddings=False, **rope()),
        sees={"no_rope_layers": [1, 1, 1], "sliding_window": 5}, lora=QV),
    "granite": case(
        "multipliers of every kind, biases, as transformers 5 writes it.", "GraniteForCausalLM",
        text("granite", embedding_multiplier=1.7, residual_multiplier=0.6, attention_multiplier=0.35, logits_scaling=0.8, attention_bias=True,
             mlp_bias=True, tie_word_embeddings=True, **rope()),
        sees={"embedding_multiplier": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 0.5, "logits_scaling": 1.0}),
    "gemma": case(
        "head_dim apart from width / heads, three layers, hidden_act under its old name.", "GemmaForCausalLM",
        text("gemma", head_dim=10, num_hidden_layers=3, hidden_act="gelu_pytorch_tanh", **rope()),
        sees={"rms_norm_eps": 1e-1}, lora=QV),
    "gemma2": case(
        "layer_types of its own order, soft caps, query_pre_attn_scalar apart from head_dim.", "Gemma2ForCausalLM",
        text("gemma2", head_dim=8, num_hidden_layers=3, layer_types=["full_attention", "sliding_attention", "sliding_attention"],
             sliding_window=4, attn_logit_softcapping=2.0, final_logit_softcapping=3.0, query_pre_attn_scalar=14, **rope()),
        sees={"attn_logit_softcapping": 9.0, "final_logit_softcapping": None, "query_pre_attn_scalar": 8, "layer_types": SLIDING}),
    "gemma3_text": case(
        "two kinds of rope by layer type, the global one yarn, as transformers 5 writes it.", "Gemma3ForCausalLM",
        text("gemma3_text", head_dim=6, num_hidden_layers=3, layer_types=SLIDING, sliding_window=4, query_pre_attn_scalar=9,
             rope_parameters={"full_attention": {"rope_type": "linear", "rope_theta": 800.0, "factor": 3.0},
                              "sliding_attention": {"rope_type": "default", "rope_theta": 40.0}}),
        sees={"rope_parameters.full_attention.factor": 1.0, "rope_parameters.sliding_attention.rope_theta": 800.0}),
    "gemma3": case(
        "as gemma-3-4b was published: rope_local_base_freq and sliding_window_pattern under text_config.", "Gemma3ForConditionalGeneration",
        dict(model_type="gemma3", mm_tokens_per_image=4, image_token_index=26, boi_token_index=24, eoi_token_index=25,
             text_config=text("gemma3_text", head_dim=8, num_hidden_layers=2, num_attention_heads=2, sliding_window=4, query_pre_attn_scalar=8,
                              layer_types=["sliding_attention", "full_attention"],
                              rope_parameters={"full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.0},
                                               "sliding_attention": {"rope_type": "default", "rope_theta": 30.0}}),
             vision_config=dict(model_type="siglip_vision_model", hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                num_attention_heads=1, num_channels=3, image_size=8, patch_size=4)),
        hub_text=dict(drop=["layer_types", "rope_parameters"],
                      put=dict(rope_theta=1000.0, rope_local_base_freq=30.0, sliding_window_pattern=2,
                               rope_scaling={"factor": 2.0, "rope_type": "linear"})),
        sees={"text_config.rope_local_base_freq": 1000.0}, lora=dict(target_modules=r".*language_model.*\.(q_proj|up_proj)")),
    "phi3": case(
        "longrope on half of each head, beyond its original length: long factors.", "Phi3ForCausalLM",
        text("phi3", hidden_size=24, num_key_value_heads=3, max_position_embeddings=32, original_max_position_embeddings=8, sliding_window=6,
             **rope(400.0, rope_type="longrope", partial_rotary_factor=0.5, short_factor=[1.0, 1.2], long_factor=[1.3, 3.0],
                    original_max_position_embeddings=8)),
        tokens=13, long_prompt=9, sees={"rope_parameters.long_factor": [1.0, 1.0], "sliding_window": 3}),
    "olmo2": case(
        "biases, a tied head, as transformers 5 writes it.", "Olmo2ForCausalLM",
        text("olmo2", num_key_value_heads=3, attention_bias=True, tie_word_embeddings=True, **rope()), sees={"rms_norm_eps": 1e-1}),
    "olmo3": case(
        "as on the hub: rope_scaling of the full layers beside layer_types.", "Olmo3ForCausalLM",
        text("olmo3", num_hidden_layers=3, layer_types=SLIDING, sliding_window=4,
             rope_parameters={"full_attention": {"rope_type": "yarn", "rope_theta": 300.0, "factor": 3.0, "attention_factor": 1.2,
                                                 "beta_fast": 4.0, "beta_slow": 0.5, "original_max_position_embeddings": 12},
                              "sliding_attention": {"rope_type": "default", "rope_theta": 500000.0}}),
        hub=dict(drop=["rope_parameters"],
                 put=dict(rope_theta=300.0, layer_types=SLIDING,
                          rope_scaling={"rope_type": "yarn", "factor": 3.0, "attention_factor": 1.2, "beta_fast": 4.0, "beta_slow": 0.5,
                                        "original_max_position_embeddings": 12})),
        sees={"rope_scaling.factor": 1.5, "sliding_window": 6}, lora=QV),
    # Blocks of other shapes.
    "phi": case(
        "layer norms of queries and keys, grouped heads, as transformers 5 writes it.", "PhiForCausalLM",
        text("phi", "layer_norm_eps", hidden_size=24, qk_layernorm=True, **rope(partial_rotary_factor=0.75)),
        sees={"rope_parameters.partial_rotary_factor": 0.5, "layer_norm_eps": 1e-1}, lora={}),
    "gpt_neox": case(
        "attention, then the MLP behind it (use_parallel_residual false), three quarters of each head rotated.", "GPTNeoXForCausalLM",
        {k: v for k, v in text("gpt_neox", "layer_norm_eps", vocab_size=SPELLED, hidden_size=24, use_parallel_residual=False, hidden_act="gelu_new",
                               **rope(partial_rotary_factor=0.75)).items() if k != "num_key_value_heads"},
        vocab=SPELLED, sees={"use_parallel_residual": True, "hidden_act": "relu"}, lora={}),
    "gpt_neox-hub": case(
        "as pythia was published, without biases in attention, tied.", "GPTNeoXForCausalLM",
        {k: v for k, v in text("gpt_neox", "layer_norm_eps", hidden_size=24, attention_bias=False, tie_word_embeddings=True,
                               **rope(200.0, partial_rotary_factor=0.5)).items() if k != "num_key_value_heads"},
        hub=dict(drop=["rope_theta", "partial_rotary_factor", "rope_scaling"], put=dict(rotary_pct=0.5, rotary_emb_base=200)),
        sees={"rotary_pct": 0.25, "use_parallel_residual": False}),
    "starcoder2": case(
        "no biases, no window, its own head, as transformers 5 writes it.", "Starcoder2ForCausalLM",
        text("starcoder2", "norm_epsilon", use_bias=False, tie_word_embeddings=False, hidden_act="gelu", **rope()),
        sees={"hidden_act": "silu", "sliding_window": 4}),
    "stablelm": case(
        "one norm before attention and MLP side by side, a layer norm for each head of queries and keys.", "StableLmForCausalLM",
        text("stablelm", "layer_norm_eps", hidden_size=24, use_parallel_residual=True, qk_layernorm=True, **rope(partial_rotary_factor=0.5)),
        sees={"rope_parameters.partial_rotary_factor": 0.25}, lora={}),
    "stablelm-hub": case(
        "as on the hub, without biases, a quarter of each head rotated by default.", "StableLmForCausalLM",
        text("stablelm", "layer_norm_eps", hidden_size=24, num_key_value_heads=3, tie_word_embeddings=True, **rope(partial_rotary_factor=0.25)),
        hub=dict(drop=["partial_rotary_factor", "rope_scaling"], put={}), sees={"partial_rotary_factor": 0.5}, lora=QV),
    "cohere": case(
        "norms of queries and keys with a weight for each head, biases, as transformers 5 writes it.", "CohereForCausalLM",
        text("cohere", "layer_norm_eps", use_qk_norm=True, attention_bias=True, logit_scale=0.6, **rope()),
        sees={"logit_scale": 1.0, "layer_norm_eps": 1e-1}),
    "cohere2": case(
        "as on the hub: sliding_window_pattern instead of layer_types.", "Cohere2ForCausalLM",
        text("cohere2", "layer_norm_eps", num_hidden_layers=3, layer_types=["sliding_attention", "full_attention", "sliding_attention"],
             sliding_window=4, logit_scale=0.8, attention_bias=True, **rope()),
        hub=dict(drop=["head_dim"], put=dict(sliding_window_pattern=2)), sees={"sliding_window_pattern": 3, "sliding_window": 6}),
    "exaone4": case(
        "without windows, where every layer has rope.", "Exaone4ForCausalLM",
        text("exaone4", sliding_window=None, layer_types=["full_attention"] * 2, tie_word_embeddings=True, **rope()),
        hub=dict(drop=[], put=dict(layer_types=["full_attention"] * 2)), sees={"rope_theta": 30.0}, lora=QV),
    "exaone4-pattern": case(
        "llama3 rope in the sliding layers alone, by sliding_window_pattern.", "Exaone4ForCausalLM",
        text("exaone4", num_hidden_layers=3, head_dim=8, sliding_window=4, sliding_window_pattern=2,
             **rope(500.0, rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=3.0, original_max_position_embeddings=12)),
        hub=dict(drop=[], put={}), sees={"sliding_window_pattern": 3, "rope_scaling.factor": 1.0}, lora=QV),
    "glm4": case(
        "as on the hub, without biases, with the default list of end tokens.", "Glm4ForCausalLM",
        text("glm4", head_dim=12, num_attention_heads=2, attention_bias=False, tie_word_embeddings=True, eos_token_id=None,
             **rope(partial_rotary_factor=0.5)),
        hub=dict(drop=["eos_token_id"], put={}), sees={"partial_rotary_factor": 1.0, "rms_norm_eps": 1e-1}),
    "ernie4_5": case(
        "biases everywhere, its own head, as on the hub.", "Ernie4_5ForCausalLM",
        text("ernie4_5", head_dim=10, use_bias=True, tie_word_embeddings=False, **rope(700.0)),
        hub=dict(drop=[], put={}), sees={"rope_theta": 20.0}),
    "hunyuan_v1_dense": case(
        "dynamic rope by alpha, biases, as on the hub.", "HunYuanDenseV1ForCausalLM",
        text("hunyuan_v1_dense", head_dim=10, attention_bias=True, tie_word_embeddings=True,
             **rope(100.0, rope_type="dynamic", alpha=20.0, factor=1.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0)),
        hub=dict(drop=[], put={}), sees={"rope_scaling.alpha": 2.0}),
    "nanochat": case(
        "grouped heads, biases, no final cap.", "NanoChatForCausalLM",
        text("nanochat", attention_bias=True, final_logit_softcapping=None, **rope()), sees={"final_logit_softcapping": 2.0}),
    # Other mixers, experts.
    "lfm2": case(
        "attention between convolutions with biases and a longer kernel, its own head, width of the MLP as given.", "Lfm2ForCausalLM",
        text("lfm2", "norm_eps", vocab_size=SPELLED, num_hidden_layers=3, layer_types=["conv", "full_attention", "conv"], conv_L_cache=4, conv_bias=True,
             block_auto_adjust_ff_dim=False, tie_word_embeddings=False, **rope()), vocab=SPELLED, sees={"norm_eps": 1e-1}),
    "lfm2-hub": case(
        "as on the hub: full_attn_idxs, block_ff_dim adjusted by a multiplier, tie_embedding.", "Lfm2ForCausalLM",
        text("lfm2", "norm_eps", intermediate_size=25, layer_types=["conv", "full_attention"], block_multiple_of=4, block_ffn_dim_multiplier=1.3,
             block_auto_adjust_ff_dim=True, tie_word_embeddings=True, **rope()),
        hub=dict(drop=["intermediate_size", "tie_word_embeddings", "rope_scaling"],
                 put=dict(full_attn_idxs=[1], block_ff_dim=25, tie_embedding=True)), sees={"rope_theta": 10.0}, lora=QV),
    "mixtral": case(
        "three of four experts, a window, a tied head, as transformers 5 writes it.", "MixtralForCausalLM",
        text("mixtral", intermediate_size=5, num_local_experts=4, num_experts_per_tok=3, sliding_window=4, tie_word_embeddings=True, head_dim=8,
             **rope()),
        sees={"num_experts_per_tok": 1, "sliding_window": 8}, lora=dict(target_modules=["q_proj"], target_parameters=["mlp.experts.down_proj"])),
    "qwen3_moe": case(
        "a dense layer among sparse ones, weights of the experts as the router gives them.", "Qwen3MoeForCausalLM",
        text("qwen3_moe", num_hidden_layers=3, head_dim=8, moe_intermediate_size=5, num_experts=4, num_experts_per_tok=2, norm_topk_prob=False,
             mlp_only_layers=[0], decoder_sparse_step=2, attention_bias=True, use_sliding_window=True, sliding_window=4, max_window_layers=1,
             **rope()),
        sees={"norm_topk_prob": True, "num_experts_per_tok": 3}, lora=QV),
    "gpt_oss": case(
        "layer_types of its own order, plain rope, no biases in attention.", "GptOssForCausalLM",
        text("gpt_oss", intermediate_size=6, head_dim=8, num_local_experts=3, num_experts_per_tok=2, attention_bias=False,
             layer_types=["full_attention", "sliding_attention"], sliding_window=4, tie_word_embeddings=True, **rope()),
        sees={"num_experts_per_tok": 1, "sliding_window": 7}, lora=dict(target_modules=["q_proj", "o_proj"])),
    "lfm2_moe": case(
        "a dense layer, then experts whose choice is corrected, a convolution with biases.", "Lfm2MoeForCausalLM",
        {k: v for k, v in text("lfm2_moe", "norm_eps", num_hidden_layers=3, layer_types=["conv", "full_attention", "conv"], conv_L_cache=3,
                               conv_bias=True, num_dense_layers=1, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=5,
                               routed_scaling_factor=1.4, hidden_size=24, **rope()).items()},
        sees={"routed_scaling_factor": 1.0, "norm_topk_prob": False}, lora=QV),
    "qwen3_5_text": case(
        "full_attention_interval, more value heads than key heads, biases, its own head.", "Qwen3_5ForCausalLM",
        text("qwen3_5_text", num_hidden_layers=3, layer_types=["linear_attention", "full_attention", "linear_attention"], head_dim=8,
             linear_conv_kernel_dim=3, linear_key_head_dim=6, linear_value_head_dim=5, linear_num_key_heads=1, linear_num_value_heads=3,
             attention_bias=True, **rope(partial_rotary_factor=0.5)),
        sees={"rope_parameters.partial_rotary_factor": 0.25}, lora=QV, tokens=12),
    "qwen3_5": case(
        "the text model under text_config, beside a vision tower, with a rope in sections.", "Qwen3_5ForConditionalGeneration",
        dict(model_type="qwen3_5", image_token_id=26, video_token_id=25, vision_start_token_id=24, vision_end_token_id=23,
             tie_word_embeddings=True,
             text_config=text("qwen3_5_text", layer_types=["linear_attention", "full_attention"], head_dim=8, linear_conv_kernel_dim=4,
                              linear_key_head_dim=4, linear_value_head_dim=6, linear_num_key_heads=2, linear_num_value_heads=2,
                              tie_word_embeddings=True,
                              **rope(partial_rotary_factor=0.75, mrope_section=[1, 1, 1], mrope_interleaved=True)),
             vision_config=dict(model_type="qwen3_5_vision", depth=1, hidden_size=8, intermediate_size=8, num_heads=1, in_channels=3,
                                patch_size=2, spatial_merge_size=1, temporal_patch_size=1, out_hidden_size=18, num_position_embeddings=4)),
        sees={"text_config.rope_parameters.rope_theta": 20.0}, lora=dict(target_modules=r".*language_model.*\.(q_proj|in_proj_qkv|up_proj)")),
    "qwen3_5_moe_text": case(
        "full_attention_interval, biases, one expert of three.", "Qwen3_5MoeForCausalLM",
        {k: v for k, v in text("qwen3_5_moe_text", head_dim=8, linear_conv_kernel_dim=4, linear_key_head_dim=4, linear_value_head_dim=6,
                               linear_num_key_heads=1, linear_num_value_heads=2, full_attention_interval=2, num_experts=3, num_experts_per_tok=1,
                               moe_intermediate_size=3, shared_expert_intermediate_size=6, attention_bias=True,
                               **rope(partial_rotary_factor=0.5)).items() if k != "intermediate_size"},
        sees={"num_experts_per_tok": 2}, lora=QV),
    "qwen3_5_moe": case(
        "the text model under text_config, beside a vision tower, experts and a shared one with a gate in every layer, experts as LoRA's targets.",
        "Qwen3_5MoeForConditionalGeneration",
        dict(model_type="qwen3_5_moe", image_token_id=26, video_token_id=25, vision_start_token_id=24, vision_end_token_id=23,
             text_config={k: v for k, v in text("qwen3_5_moe_text", layer_types=["linear_attention", "full_attention"], head_dim=8,
                                                linear_conv_kernel_dim=4, linear_key_head_dim=4, linear_value_head_dim=6, linear_num_key_heads=2,
                                                linear_num_value_heads=4, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=5,
                                                shared_expert_intermediate_size=7,
                                                **rope(partial_rotary_factor=0.75)).items() if k != "intermediate_size"},
             vision_config=dict(model_type="qwen3_5_moe_vision", depth=1, hidden_size=8, intermediate_size=8, num_heads=1, in_channels=3,
                                patch_size=2, spatial_merge_size=1, temporal_patch_size=1, out_hidden_size=18, num_position_embeddings=4)),
        sees={"text_config.num_experts_per_tok": 3},
        lora=dict(target_modules=r".*language_model.*\.(q_proj|in_proj_qkv)", target_parameters=["experts.gate_up_proj", "experts.down_proj"])),
    "gemma4_text": case(
        "keys that are the values too in global layers, with heads of their own number, no per-layer embeddings, no sharing.",
        "Gemma4ForCausalLM",
        text("gemma4_text", num_hidden_layers=3, layer_types=["sliding_attention", "sliding_attention", "full_attention"], head_dim=6,
             global_head_dim=8, num_key_value_heads=3, num_global_key_value_heads=1, attention_k_eq_v=True, hidden_size_per_layer_input=0,
             sliding_window=4, vocab_size_per_layer_input=VOCAB,
             rope_parameters={"full_attention": {"rope_type": "proportional", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
                              "sliding_attention": {"rope_type": "default", "rope_theta": 40.0}}),
        hub=dict(drop=["per_layer_config"],
                 put=dict(global_head_dim=8, num_global_key_value_heads=1,
                          layer_types=["sliding_attention", "sliding_attention", "full_attention"],
                          rope_parameters={"full_attention": {"rope_type": "proportional", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
                                           "sliding_attention": {"rope_type": "default", "rope_theta": 40.0}})),
        sees={"rope_parameters.full_attention.partial_rotary_factor": 1.0, "sliding_window": 7}, lora=dict(target_modules=["q_proj", "k_proj"])),
    "gemma4": case(
        "the text model under text_config, beside a vision tower; per-layer embeddings, two layers that share keys and values.",
        "Gemma4ForConditionalGeneration",
        dict(model_type="gemma4", audio_config=None, image_token_id=1006, video_token_id=1005, audio_token_id=1004, boi_token_id=1003,
             eoi_token_id=1002, boa_token_id=1001, eoa_token_index=1000,
             text_config=text("gemma4_text", num_hidden_layers=4, head_dim=6, global_head_dim=8, hidden_size_per_layer_input=3,
                              layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
                              num_kv_shared_layers=2, use_double_wide_mlp=True, sliding_window=4, vocab_size_per_layer_input=VOCAB,
                              final_logit_softcapping=4.0, intermediate_size=8,
                              rope_parameters={"full_attention": {"rope_type": "proportional", "rope_theta": 500.0,
                                                                  "partial_rotary_factor": 0.25},
                                               "sliding_attention": {"rope_type": "default", "rope_theta": 40.0}}),
             vision_config=dict(model_type="gemma4_vision", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                                num_key_value_heads=1, head_dim=8, patch_size=4, position_embedding_size=8, pooling_kernel_size=1)),
        sees={"text_config.sliding_window": 7, "text_config.final_logit_softcapping": 30.0},
        lora=dict(target_modules=r".*language_model.*\.(q_proj|v_proj)")),
    "deepseek_v3": case(
        "no low rank of the queries, pairs in halves, three groups of experts, as transformers 5 writes it.", "DeepseekV3ForCausalLM",
        text("deepseek_v3", num_key_value_heads=3, q_lora_rank=None, kv_lora_rank=7, qk_nope_head_dim=5, qk_rope_head_dim=6, v_head_dim=9,
             first_k_dense_replace=1, moe_intermediate_size=4, n_routed_experts=6, n_group=3, topk_group=2, num_experts_per_tok=3,
             n_shared_experts=2, norm_topk_prob=False, routed_scaling_factor=2.0, rope_interleave=False, **rope()),
        sees={"norm_topk_prob": True, "routed_scaling_factor": 1.0, "rope_interleave": True}, lora=dict(target_modules=["q_proj", "o_proj"])),
    "qwen3_next": case(
        "every layer sparse, as transformers 5 writes it.", "Qwen3NextForCausalLM",
        text("qwen3_next", layer_types=["linear_attention", "full_attention"], head_dim=8, linear_conv_kernel_dim=4, linear_key_head_dim=4,
             linear_value_head_dim=6, linear_num_key_heads=2, linear_num_value_heads=4, num_experts=3, num_experts_per_tok=2,
             moe_intermediate_size=4, shared_expert_intermediate_size=5, norm_topk_prob=False, mlp_only_layers=[], decoder_sparse_step=1,
             tie_word_embeddings=True, **rope(partial_rotary_factor=0.25)),
        sees={"norm_topk_prob": True, "num_experts_per_tok": 1}, lora=QV),
    "granitemoehybrid": case(
        "Mamba-2 of two groups beside attention with rope, experts and a shared one.", "GraniteMoeHybridForCausalLM",
        text("granitemoehybrid", hidden_size=24, layer_types=["mamba", "attention"], mamba_n_heads=4, mamba_d_head=12, mamba_d_state=5,
             mamba_n_groups=2, mamba_expand=2, mamba_d_conv=3, mamba_chunk_size=4, position_embedding_type="rope", num_local_experts=3,
             num_experts_per_tok=2, intermediate_size=5, shared_intermediate_size=7, residual_multiplier=0.7, embedding_multiplier=1.5,
             logits_scaling=0.8, attention_multiplier=0.4, tie_word_embeddings=True, **rope()),
        sees={"residual_multiplier": 1.0, "num_experts_per_tok": 1}, lora=QV),
    "falcon_h1": case(
        "attention and Mamba-2 side by side, with the norm behind the gate.", "FalconH1ForCausalLM",
        text("falcon_h1", vocab_size=SPELLED, hidden_size=24, head_dim=8, mamba_d_ssm=24, mamba_n_heads=4, mamba_d_head=6, mamba_d_state=5, mamba_n_groups=2,
             mamba_d_conv=4, mamba_chunk_size=4, mamba_rms_norm=True, mamba_norm_before_gate=False, attention_in_multiplier=0.8,
             attention_out_multiplier=1.2, key_multiplier=0.5, embedding_multiplier=1.3, lm_head_multiplier=0.7, mlp_multipliers=[1.2, 0.8],
             ssm_in_multiplier=0.9, ssm_out_multiplier=1.1, ssm_multipliers=[0.9, 0.8, 0.7, 0.6, 0.5], tie_word_embeddings=True, **rope()),
        vocab=SPELLED, sees={"key_multiplier": 1.0, "ssm_out_multiplier": 0.5}, lora=QV),
    "nemotron_h": case(
        "Mamba-2, attention and an MLP by layers_block_type, biases.", "NemotronHForCausalLM",
        {k: v for k, v in text("nemotron_h", "layer_norm_epsilon", hidden_size=24, head_dim=6, layers_block_type=["mamba", "mlp", "attention"],
                               mamba_num_heads=4, mamba_head_dim=6, ssm_state_size=5, n_groups=2, conv_kernel=3, chunk_size=4, expand=1,
                               mlp_bias=True, use_bias=True).items() if k != "num_hidden_layers"},
        sees={"layer_norm_epsilon": 1e-1}, lora=QV),
    "gemma3n_text": case(
        "three streams, two layers that share keys and values, as transformers 5 writes it.", "Gemma3nForCausalLM",
        text("gemma3n_text", num_hidden_layers=4, head_dim=6, layer_types=["sliding_attention", "full_attention"] * 2, sliding_window=4,
             hidden_size_per_layer_input=3, vocab_size_per_layer_input=VOCAB, laurel_rank=3, altup_num_inputs=3, altup_active_idx=1,
             altup_correct_scale=True, num_kv_shared_layers=2, activation_sparsity_pattern=[0.8, 0.0, 0.0, 0.0], intermediate_size=8,
             final_logit_softcapping=5.0, rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 700.0},
                                                          "sliding_attention": {"rope_type": "default", "rope_theta": 50.0}}),
        sees={"altup_active_idx": 0, "sliding_window": 7, "activation_sparsity_pattern": [0.0] * 4}, lora=QV),
    "gemma3n": case(
        "the text model under text_config, beside two towers, one layer that shares keys and values.", "Gemma3nForCausalLM",
        text("gemma3n_text", num_hidden_layers=3, head_dim=6, layer_types=["full_attention", "sliding_attention", "sliding_attention"],
             sliding_window=4, hidden_size_per_layer_input=4, vocab_size_per_layer_input=VOCAB, laurel_rank=2, altup_num_inputs=2,
             altup_correct_scale=False, num_kv_shared_layers=1, activation_sparsity_pattern=[0.7, 0.0, 0.0], intermediate_size=[7, 7, 7],
             rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 700.0},
                              "sliding_attention": {"rope_type": "default", "rope_theta": 50.0}}),
        inside=dict(config=dict(model_type="gemma3n", architectures=["Gemma3nForConditionalGeneration"], audio_config={}, vision_config={},
                                audio_token_id=1000, image_token_id=1001, boa_token_id=1002, eoa_token_id=1003, boi_token_id=1004,
                                eoi_token_id=1005, audio_soft_tokens_per_image=4, vision_soft_tokens_per_image=4),
                    towers={"model.vision_tower.timm_model.conv_stem.conv.weight": [2, 3, 2, 2],
                            "model.audio_tower.conformer.0.norm.weight": [4], "model.embed_vision.embedding.weight": [3, 4],
                            "model.embed_audio.embedding.weight": [3, 4]}),
        sees={"activation_sparsity_pattern": [0.0] * 3}, lora=QV),
}
