"""Makes layouts.json beside it: what transformers computes of config.json files that say the same model otherwise than today's do, or leave things out.

    pip install torch==2.13.0 transformers==5.18.0
    python make_layouts.py

A row is {about, config, tokens, logits}: logits [3, V] of the last three of so many tokens, which are 1, 2, 3, … modulo V. Weights lie in no file: they are
drawn by `drawn`, which the test does likewise. Everything is float32 and eager, on one thread. A row whose logits are those of `unlike`, the config that it
could be mistaken for, is an error.
"""
import json
import warnings
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

SIZES = dict(vocab_size=11, hidden_size=24, intermediate_size=10, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
             max_position_embeddings=40, rms_norm_eps=1e-3, layer_norm_eps=1e-3)
TYPES = ["sliding_attention", "full_attention"]
YARN = dict(factor=4.0, original_max_position_embeddings=10, beta_fast=3.0, beta_slow=0.2)


def row(about, kind, fields, unlike, without=(), tokens=14):
    """`unlike` changes fields; None takes one away. None for all where no config says what it could be mistaken for."""
    config = {"model_type": kind, **{name: value for name, value in SIZES.items() if name not in without}, **fields}
    other = None if unlike is None else {name: value for name, value in {**config, **unlike}.items() if value is not None or name not in unlike}
    return dict(about=about, config=config, tokens=tokens, unlike=other)


ROWS = [
    row("Cohere's theta is 500000 where the file has none", "cohere", {}, dict(rope_theta=10000.0)),
    row("StarCoder 2 has 2 heads of keys where the file does not say", "starcoder2", dict(bos_token_id=1), dict(num_key_value_heads=4), ["num_key_value_heads"]),
    row("GLM-4 has 2 heads of keys where the file does not say", "glm4", dict(pad_token_id=0), dict(num_key_value_heads=4), ["num_key_value_heads"]),
    row("ERNIE 4.5 has 2 heads of keys where the file does not say", "ernie4_5", {}, dict(num_key_value_heads=4), ["num_key_value_heads"]),
    row("Gemma 3 has 8 heads, 4 of keys, where the file does not say, as the published file of the 4B model", "gemma3_text",
        dict(layer_types=TYPES, sliding_window=4, query_pre_attn_scalar=8), dict(num_key_value_heads=8), ["num_attention_heads", "num_key_value_heads"]),
    row("Gemma 3 with its tower has no cap of logits, whatever its text model says", "gemma3",
        dict(text_config={"model_type": "gemma3_text", **SIZES, "query_pre_attn_scalar": 8, "final_logit_softcapping": 0.5},
             vision_config=dict(model_type="siglip_vision_model", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                                num_channels=3, image_size=8, patch_size=4), mm_tokens_per_image=4, image_token_index=10, boi_token_index=8,
             eoi_token_index=9), None),
    row("GPT-2's sizes by the names that most families have for them", "gpt2", dict(activation_function="gelu"), dict(num_attention_heads=2),
        ["intermediate_size", "head_dim", "num_key_value_heads", "rms_norm_eps", "layer_norm_eps"]),
    row("SmolLM3's layers that are listed as sliding have a window without use_sliding_window", "smollm3",
        dict(layer_types=TYPES, sliding_window=3, use_sliding_window=False, pad_token_id=0), dict(layer_types=None)),
    row("GPT-NeoX's theta and part of a head do not stand under today's names", "gpt_neox",
        dict(hidden_size=32, rope_theta=50.0, partial_rotary_factor=1.0), dict(rotary_emb_base=50.0, rotary_pct=1.0), ["head_dim", "num_key_value_heads"]),
    row("Ministral 3's usual positions are meant by an empty rope_scaling", "ministral3", dict(rope_scaling={}, pad_token_id=0),
        dict(rope_scaling={"rope_type": "default", "original_max_position_embeddings": 16384, "llama_4_scaling_beta": 0.1})),
    row("Mistral's layers that are listed as full have its window", "mistral", dict(layer_types=["full_attention"] * 2, sliding_window=3),
        dict(sliding_window=None)),
    row("a layer's type by its former name", "qwen3", dict(layer_types=["attention", "sliding_attention"], use_sliding_window=True, sliding_window=3),
        dict(layer_types=["sliding_attention"] * 2)),
    *(row(f"{name}'s full layers take {what}", kind, {**more, **fields}, unlike)
      for name, kind, more in [("Gemma 3", "gemma3_text", dict(query_pre_attn_scalar=8, layer_types=TYPES, sliding_window=4)),
                               ("OLMo 3", "olmo3", dict(pad_token_id=0, layer_types=TYPES, sliding_window=4))]
      for what, fields, unlike in [
          ("rope_scaling", dict(rope_theta=90.0, rope_scaling={"rope_type": "linear", "factor": 3.0}), dict(rope_scaling=None)),
          ("no rope_scaling whose kind stands under its former name", dict(rope_theta=90.0, rope_scaling={"type": "linear", "factor": 3.0}),
           dict(rope_scaling={"rope_type": "linear", "factor": 3.0})),
          ("rope_scaling beside their own rope_parameters",
           dict(rope_scaling={"factor": 3.0}, rope_parameters={"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 40.0},
                                                               "sliding_attention": {"rope_type": "default", "rope_theta": 60.0}}),
           dict(rope_scaling=None)),
          ("no rope_parameters of all layers", dict(rope_parameters={"rope_type": "linear", "factor": 3.0, "rope_theta": 50.0}),
           dict(rope_parameters={layers: {"rope_type": "linear", "factor": 3.0, "rope_theta": 50.0} for layers in TYPES})),
          ("YaRN's whole pairs, whatever their own truncate says",
           dict(rope_parameters={"full_attention": {"rope_type": "yarn", "rope_theta": 90.0, "truncate": False, **YARN}}),
           dict(rope_parameters={"full_attention": {"rope_type": "yarn", "rope_theta": 90.0, **YARN}, "truncate": False})),
      ]),
]


def drawn(name, shape):
    """Numbers between -1 and 1, wider for matrices of few columns: a linear congruential generator from the name's FNV-1a hash."""
    state = 2166136261
    for byte in name.encode():
        state = ((state ^ byte) * 16777619) % 2**32
    count = torch.Size(shape).numel()
    values = []
    for _ in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        values.append(state / 2**31 - 1)
    spread = 0.5 if len(shape) < 2 else 1.5 / shape[-1] ** 0.5
    values = torch.tensor(values, dtype=torch.float64).reshape(shape) * spread
    return (values + (1 if len(shape) < 2 and name.endswith("weight") else 0)).float()


def logits_of(config, tokens):
    config = AutoConfig.for_model(**json.loads(json.dumps(config)))
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(drawn(name, parameter.shape))
        ids = torch.arange(1, tokens + 1)[None] % config.vocab_size
        return model(input_ids=ids).logits[0, -3:]


def made(about, config, tokens, unlike):
    logits = logits_of(config, tokens)
    moved = None if unlike is None else (logits - logits_of(unlike, tokens)).abs().max().item()
    assert moved is None or moved > 0.003, f"{about}: the logits move by {moved}"
    return {"about": about, "config": config, "tokens": tokens, "logits": [[round(x, 6) for x in line] for line in logits.tolist()]}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    lines = [json.dumps(made(**row)) for row in ROWS]
    (Path(__file__).resolve().parent / "layouts.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(len(lines), "rows")
