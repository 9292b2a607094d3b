"""Writes loftq.json: B A of LoftQ's first step on a matrix in nf4, as peft.utils.loftq_utils.loftq_init (0.21, num_bits 4, num_iter 1) computes it. python loftq.py

bitsandbytes' quantization (blocks of 64, scales in f32) is written again in numpy."""
import json
import pathlib

import numpy as np
import torch

f32 = np.float32
rows, columns, rank = 24, 64, 4
codes = np.array([-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1], f32)
state, values = 5, []
for _ in range(rows * columns):
    state = (state * 1664525 + 1013904223) % 2**32
    values.append((state >> 8) / 2**23 - 1)
weight = np.array(values, f32).reshape(rows, columns)
absmax = np.abs(weight).max(1, keepdims=True)
quantized = codes[np.argmin(np.abs((weight * (f32(1) / absmax))[..., None] - codes), -1)] * absmax
# _low_rank_decomposition
u, s, vh = torch.linalg.svd(torch.from_numpy(weight - quantized), full_matrices=False)
left = u @ torch.sqrt(torch.diag(s)[:, :rank])
right = torch.sqrt(torch.diag(s)[:rank, :]) @ vh
product = (left @ right).double()
error = np.linalg.norm(weight - quantized - product.numpy())
made = {"rows": rows, "columns": columns, "rank": rank, "product": [round(x, 7) for x in product.flatten().tolist()], "error": float(error)}
pathlib.Path(__file__).with_name("loftq.json").write_text(json.dumps(made) + "\n")
print(error, np.linalg.norm(weight - quantized))
