"""Writes qlora.json: losses of ten steps of LoRA beside dequantized weights, by PyTorch, transformers and PEFT. python qlora.py

Weights, first values and tokens are those of `formula` in qlora.test.ts, so that the file holds losses alone. nf4 and fp4 are written again in numpy from bitsandbytes
0.50 (blocks of 64, scales quantized in turn); Q8_0, Q4_0 and Q5_0 are the gguf package's."""
import json
import pathlib

import gguf
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

f32 = np.float32
sizes = dict(vocab_size=48, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32)


def formula(count, seed):
    """Numbers within ±1, equal in JavaScript."""
    state, values = seed, []
    for _ in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        values.append((state >> 8) / 2**23 - 1)
    return np.array(values)


normal = np.array([-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1], f32)
half = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3], f32) / f32(12)
codes = {"nf4": normal, "fp4": np.concatenate([half, -half])}
dynamic = [0.0, 1.0]
for i in range(7):
    count = 2**i
    step = float(f32(f32(1) - f32(0.1)) / f32(count))
    borders = np.array([float(f32(0.1)) + j * step if 2 * j <= count else 1 - (count - j) * step for j in range(count + 1)]).astype(f32)
    for middle in f32(10.0 ** (i - 6)) * ((borders[:-1] + borders[1:]) / f32(2)):
        dynamic += [middle, -middle]
dynamic = np.sort(np.array(dynamic, f32))


def nearest(values, code):
    return code[np.argmin(np.abs(values[..., None] - code), -1)]


def four_bit(weight, kind):
    blocks = weight.reshape(-1, 64)
    absmax = np.abs(blocks).max(1)
    offset = absmax.mean(dtype=np.float64).astype(f32)
    rest = absmax - offset
    scales = np.concatenate([nearest(part / np.abs(part).max(), dynamic) * np.abs(part).max() for part in np.split(rest, range(256, rest.size, 256))]) + offset
    return (nearest(blocks * (f32(1) / absmax)[:, None], codes[kind]) * scales[:, None]).reshape(weight.shape)


def int8(weight):
    rows = weight.astype(np.float16).astype(f32)
    scb = np.abs(rows).max(1, keepdims=True)
    return np.rint(rows * (f32(127) / scb)).astype(f32) * scb * f32(0.007874015718698502)


def in_blocks(weight, name):
    kind = gguf.GGMLQuantizationType[name]
    return gguf.dequantize(gguf.quantize(weight, kind), kind)


def dequantized(weight, kind):
    if kind in codes:
        return four_bit(weight, kind)
    if kind == "int8":
        return int8(weight)
    return weight if kind == "none" else in_blocks(weight, kind.upper())


def curve(kind):
    model = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=False, rms_norm_eps=1e-6, rope_theta=10000.0))
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(model.named_parameters())):
            if "norm" in name:
                parameter.fill_(1)
                continue
            values = (formula(parameter.numel(), number + 1) * 0.25).astype(f32).reshape(parameter.shape)
            parameter.copy_(torch.from_numpy(dequantized(values, kind) if "proj" in name else values))
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    trained = sorted((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    with torch.no_grad():
        for number, (name, parameter) in enumerate(trained):
            if "lora_A" in name:
                parameter.copy_(torch.from_numpy((formula(parameter.numel(), 100 + number) / 8).astype(f32).reshape(parameter.shape)))
    optimizer = torch.optim.AdamW([parameter for _, parameter in trained], lr=0.02, weight_decay=0)
    ids = torch.from_numpy(np.floor((formula(2 * 16, 99) + 1) / 2 * 48).astype(np.int64).reshape(2, 16))
    losses = []
    for _ in range(10):
        loss = model(ids, labels=ids).loss
        losses.append(round(loss.item(), 6))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


torch.set_num_threads(1)
made = {kind: curve(kind) for kind in ["none", "nf4", "fp4", "int8", "q8_0", "q4_0", "q5_0"]}
pathlib.Path(__file__).with_name("qlora.json").write_text(json.dumps({"sizes": sizes, "losses": made}, indent=1) + "\n")
print(made)
