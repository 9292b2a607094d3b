"""Writes quantised/*.json: tiny models of random codes and scales as bitsandbytes, GPTQ's tools, AutoAWQ, mlx-lm and transformers store them, and the
logits that transformers (5.18) gives with the numbers that these stand for. The decoding is written here again, in numpy. python quantised.py"""
import base64
import gzip
import json
import pathlib
import struct

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

rng = np.random.default_rng(22)
folder = pathlib.Path(__file__).with_name("quantised")
folder.mkdir(exist_ok=True)
names = {"float32": "F32", "float16": "F16", "uint8": "U8", "int8": "I8", "int32": "I32", "uint32": "U32", "int64": "I64", "bf16": "BF16"}


def bf16(x):
    """Numbers rounded to bf16, marked as such."""
    return torch.from_numpy(np.asarray(x, np.float32)).to(torch.bfloat16)


def safetensors(tensors, pad=True):
    """The bytes of a file; without `pad` data begin at any byte, as mlx leaves them."""
    header, data = {}, b""
    for name, t in tensors.items():
        is_bf16 = isinstance(t, torch.Tensor)
        raw = t.view(torch.int16).numpy().tobytes() if is_bf16 else np.ascontiguousarray(t).tobytes()
        header[name] = {"dtype": names["bf16" if is_bf16 else str(t.dtype)], "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    if pad:
        text += b" " * (-len(text) % 8)
    elif len(text) % 2 == 0:
        text += b" "
    return struct.pack("<Q", len(text)) + text + data


def stream(codes, bits):
    """Codes as a stream of bits along the last axis, lowest first, in u32."""
    places = (codes[..., None] >> np.arange(bits)) & 1
    flat = places.reshape(*codes.shape[:-1], -1, 32).astype(np.uint64)
    return (flat << np.arange(32, dtype=np.uint64)).sum(-1).astype(np.uint32)


NF4 = np.array([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0], np.float32)
FP4 = np.array([0, 0.0052083333, 0.6666667, 1, 0.3333333, 0.5, 0.1666667, 0.25, 0, -0.0052083333, -0.6666667, -1, -0.3333333, -0.5, -0.1666667, -0.25], np.float32)
dynamic = np.sort(np.concatenate([[0], *[s * np.geomspace(1e-3, 1, 128 - (s < 0)) for s in (-1, 1)]])).astype(np.float32)


def four_bits(name, shape, kind, block=64, nested=False, storage=np.uint8):
    size = int(np.prod(shape))
    blocks = -(-size // block)
    codes = rng.integers(0, 16, size + size % 2)
    table = {"nf4": NF4, "fp4": FP4}[kind]
    packed = ((codes[0::2] << 4) | codes[1::2]).astype(np.uint8)
    state = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16", "shape": list(shape)}
    made = {}
    if nested:
        q, outer = rng.integers(100, 256, blocks).astype(np.uint8), -(-blocks // 256)
        largest = rng.uniform(0.05, 0.1, outer).astype(np.float32)
        absmax = dynamic[q] * np.repeat(largest, 256)[:blocks] + np.float32(0.15)
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": float(np.float32(0.15))}
        made |= {".absmax": q, ".nested_absmax": largest, ".nested_quant_map": dynamic}
    else:
        absmax = rng.uniform(0.1, 0.3, blocks).astype(np.float32)
        made |= {".absmax": absmax}
    values = (table[codes[:size]] * np.repeat(absmax.astype(np.float32), block)[:size]).reshape(shape)
    held = torch.from_numpy(packed.view(np.int16).copy()).view(torch.bfloat16)[:, None] if storage == "bf16" else packed[:, None]
    made |= {"": held, ".quant_map": table, f".quant_state.bitsandbytes__{kind}": np.frombuffer(json.dumps(state).encode(), np.uint8)}
    return {name + ".weight" + end: t for end, t in made.items()}, values


def int8(name, shape):
    q, scb = rng.integers(-127, 128, shape).astype(np.int8), rng.uniform(0.1, 0.4, shape[0]).astype(np.float32)
    values = q.astype(np.float32) * scb[:, None] * np.float32(0.007874015718698502)
    return {name + ".weight": q, name + ".SCB": scb, name + ".weight_format": np.array(0, np.uint8)}, values


def gptq(name, shape, bits, group=32, version=1, order="shuffled"):
    out, k = shape
    groups = -(-k // group)
    q, zero = rng.integers(0, 2**bits, (k, out)), rng.integers(1 if version == 1 else 0, 2**bits, (groups, out))
    scales = (rng.uniform(0.2, 0.5, (groups, out)) / 2**bits).astype(np.float16)
    of = np.arange(k) // group
    if order == "shuffled":
        of = rng.permutation(of)
    values = (scales.astype(np.float32)[of] * (q - zero[of])).T
    made = {".qweight": stream(q.T, bits).T.view(np.int32), ".qzeros": stream(zero - (version == 1), bits).view(np.int32), ".scales": scales}
    if order != "none":
        made[".g_idx"] = of.astype(np.int32)
    return {name + end: t for end, t in made.items()}, values


def awq(name, shape, group=32):
    out, k = shape
    q, zero = rng.integers(0, 16, (k, out)), rng.integers(0, 16, (k // group, out))
    scales = rng.uniform(0.01, 0.03, (k // group, out)).astype(np.float16)
    values = (scales.astype(np.float32).repeat(group, 0) * (q - zero.repeat(group, 0))).T
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    pack = lambda codes: stream(codes.reshape(*codes.shape[:-1], -1, 8)[..., order].reshape(codes.shape), 4).view(np.int32)
    return {name + ".qweight": pack(q), name + ".qzeros": pack(zero), name + ".scales": scales}, values


def mlx(name, shape, bits, group=32):
    *outer, k = shape
    q = rng.integers(0, 2**bits, shape)
    scales, biases = bf16(rng.uniform(-0.3, 0.3, (*outer, k // group)) / 2**bits), bf16(rng.uniform(-0.1, 0.1, (*outer, k // group)))
    values = q * scales.float().numpy().repeat(group, -1) + biases.float().numpy().repeat(group, -1)
    return {name + ".weight": stream(q, bits), name + ".scales": scales, name + ".biases": biases}, values.astype(np.float32)


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def powers(shape):
    *outer, k = shape
    q, s = rng.integers(0, 16, shape), rng.integers(120, 124, (*outer, k // 32)).astype(np.uint8)
    values = E2M1[q] * (2.0 ** (s.astype(np.float32) - 127)).repeat(32, -1)
    return q, s, values.astype(np.float32)


def mlx_mxfp4(name, shape):
    q, s, values = powers(shape)
    return {name + ".weight": stream(q, 4), name + ".scales": s}, values


llama = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 24, "hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 1000.0,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2}
gpt2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 24, "n_positions": 32, "n_embd": 32, "n_layer": 1, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2,
    "tie_word_embeddings": True}
mixtral = llama | {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "num_local_experts": 3, "num_experts_per_tok": 2, "intermediate_size": 32}
gpt_oss = llama | {"model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], "num_local_experts": 3, "num_experts_per_tok": 2, "intermediate_size": 32, "sliding_window": 8,
    "layer_types": ["full_attention"], "attention_bias": True, "rope_theta": 1000.0, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 4.0, "beta_slow": 0.3, "original_max_position_embeddings": 8, "truncate": False}}
ids = rng.integers(3, 24, (2, 9))


def packed_text(data):
    """gzip and base64: tables and headers are the same many times."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def write(name, config, packed, said, *, dense=lambda t: bf16(t), add=None, drop=(), files=None, pad=True, quantize_config=None):
    """`packed(module, shape)`: the tensors and values of a linear layer's weight, or None where it stays. `files`: to which of several files a tensor goes."""
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{k: v for k, v in config.items() if k != "architectures"}), attn_implementation="eager").float().eval()
    tensors, state = {}, model.state_dict()
    for key, t in list(state.items()):
        if key == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        if key.endswith("weight") and t.dim() > 1:
            t = torch.randn(t.shape) * 0.15
        elif "bias" in key or "sinks" in key:
            t = torch.randn(t.shape) * 0.1
        found = packed(key, tuple(t.shape))
        if found is None:
            held = dense(t.numpy())
            tensors[key] = held
            state[key] = held.float() if isinstance(held, torch.Tensor) else torch.from_numpy(held.astype(np.float32))
        else:
            made, values = found
            tensors |= made
            state[key] = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    if config["tie_word_embeddings"]:
        state["lm_head.weight"] = state[next(key for key in state if "embed_tokens" in key or "wte" in key)]
    model.load_state_dict(state)
    with torch.no_grad():
        logits = model(torch.from_numpy(ids)).logits.numpy()
    tensors = {key: t for key, t in (tensors | (add or {})).items() if key not in drop}
    parts = {"model.safetensors": tensors}
    if files:
        parts = {}
        for key, t in tensors.items():
            parts.setdefault(files(key), {})[key] = t
    made = {part: packed_text(safetensors(held, pad)) for part, held in parts.items()}
    if files:
        index = {"metadata": {}, "weight_map": {key: part for part, held in parts.items() for key in held}}
        made["model.safetensors.index.json"] = packed_text(json.dumps(index).encode())
    if quantize_config:
        made["quantize_config.json"] = packed_text(json.dumps(quantize_config).encode())
    case = {"config": config | said, "files": made, "logits": packed_text(logits.astype("<f4").tobytes()), "ids": ids.tolist()}
    (folder / f"{name}.json").write_text(json.dumps(case, indent=1) + "\n")
    print(name, sum(len(t) for t in made.values()), float(logits.std()))


def linears(make, skip=("embed_tokens", "lm_head", "wte", "wpe", "norm", "router", "gate.weight")):
    return lambda key, shape: None if len(shape) != 2 or any(word in key for word in skip) else make(key[: -len(".weight")], shape)


bnb = lambda **options: {"quantization_config": {"quant_method": "bitsandbytes", **options}}
parity = lambda key: sum(key.encode()) % 2
write("nf4-bias-sharded", llama | {"attention_bias": True}, linears(lambda m, s: four_bits(m, s, "nf4"), ("embed_tokens", "lm_head", "norm", "o_proj")),
    bnb(load_in_4bit=True, llm_int8_skip_modules=["lm_head", "o_proj"]), files=lambda key: f"model-0000{1 + parity(key)}-of-00002.safetensors")
write("fp4-nested-bf16-storage", llama | {"intermediate_size": 40}, linears(lambda m, s: four_bits(m, s, "fp4", nested=True, storage="bf16")),
    bnb(load_in_4bit=True, bnb_4bit_quant_storage="bfloat16"))
write("int8", llama, linears(int8), bnb(load_in_8bit=True))
conv = lambda make: linears(lambda m, s: (lambda made: (made[0], made[1].T))(make(m, s[::-1])))
write("gpt2-nf4-nested", gpt2, conv(lambda m, s: four_bits(m, s, "nf4", nested=True)), bnb(load_in_4bit=True))
said = lambda bits, **more: {"bits": bits, "group_size": 32, "desc_act": True, "sym": False, **more}
write("gptq-2bit-v2", llama, linears(lambda m, s: gptq(m, s, 2, version=2)), {"quantization_config": said(2, quant_method="gptq", checkpoint_format="gptq_v2")},
    dense=lambda t: t.astype(np.float16))
write("gptq-3bit-zero-bias", llama | {"head_dim": 32}, linears(lambda m, s: gptq(m, s, 3, group=24)), {}, dense=lambda t: t.astype(np.float16),
    add={"model.layers.0.mlp.up_proj.bias": np.zeros(96, np.float16)}, quantize_config=said(3, group_size=24))
write("gptq-8bit-one-group", llama, linears(lambda m, s: gptq(m, s, 8, group=s[1], order="none")), {"quantization_config": said(8, quant_method="gptq", group_size=-1)},
    dense=lambda t: t.astype(np.float16))
write("awq-bias", llama | {"attention_bias": True}, linears(awq), {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "GEMM"}},
    dense=lambda t: t.astype(np.float16))
options = {"self_attn.k_proj": 5, "mlp.up_proj": 2, "mlp.down_proj": 6}
bits_of = lambda m: next((bits for end, bits in options.items() if m.endswith(end)), 3)
every = {"group_size": 32, "bits": 3, **{f"model.layers.0.{end}": {"group_size": 32, "bits": bits} for end, bits in options.items()}}
write("mlx-tied-unaligned", llama | {"tie_word_embeddings": True}, linears(lambda m, s: mlx(m, s, bits_of(m)), ("lm_head", "norm")),
    {"quantization": every, "quantization_config": every}, pad=False)
both = {"group_size": 32, "bits": 4, "mode": "mxfp4", "model.layers.0.mlp.gate_proj": {"group_size": 32, "bits": 8, "mode": "affine"}}
write("mlx-mxfp4", llama, linears(lambda m, s: mlx(m, s, 8) if "gate_proj" in m else mlx_mxfp4(m, s), ("lm_head", "norm", "o_proj")), {"quantization": both, "quantization_config": both}, pad=False)


def experts(key, shape, make):
    """Experts that transformers stacks, as checkpoints hold them: one layer each."""
    tensors, values = {}, np.zeros(shape, np.float32)
    for e in range(shape[0]):
        place = key.split("mlp.experts")[0] + f"block_sparse_moe.experts.{e}."
        if "gate_up" in key:
            half = shape[1] // 2
            for word, rows in (("w1", slice(0, half)), ("w3", slice(half, None))):
                made, values[e, rows] = make(place + word, (half, shape[2]))
                tensors |= made
        else:
            made, values[e] = make(place + "w2", shape[1:])
            tensors |= made
    return tensors, values


def of_mixtral(make):
    def packed(key, shape):
        if len(shape) == 3:
            return experts(key, shape, make)
        if key.endswith("mlp.gate.weight"):
            t = bf16(rng.normal(0, 0.15, shape))
            return {key.replace("mlp.gate", "block_sparse_moe.gate"): t}, t.float().numpy()
        return linears(make)(key, shape)

    return packed


write("mixtral-nf4", mixtral, of_mixtral(lambda m, s: four_bits(m, s, "nf4", nested=True)), bnb(load_in_4bit=True))
write("mixtral-gptq", mixtral, of_mixtral(lambda m, s: gptq(m, s, 4, group=16)), {"quantization_config": said(4, quant_method="gptq", group_size=16)}, dense=lambda t: t.astype(np.float16))
write("mixtral-mixed", mixtral, of_mixtral(lambda m, s: int8(m, s) if m.endswith(("2.w3", "1.w2")) else four_bits(m, s, "fp4")), bnb(load_in_4bit=True))


def of_gpt_oss(key, shape):
    if len(shape) != 3:
        return None
    q, s, values = powers((shape[0], shape[2], shape[1]))
    blocks = (q[..., 0::2] | (q[..., 1::2] << 4)).astype(np.uint8).reshape(*q.shape[:-1], -1, 16)
    return {key + "_blocks": blocks, key + "_scales": s}, values.transpose(0, 2, 1)


write("gpt-oss-mxfp4", gpt_oss, of_gpt_oss, {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}})

# The last block of each expert is shorter.
write("mixtral-nf4-long-blocks", mixtral, of_mixtral(lambda m, s: four_bits(m, s, "nf4", block=4096, nested=True)), bnb(load_in_4bit=True))
