"""Writes quantize.json: numbers, and what the gguf package, bitsandbytes' arithmetic and llama.cpp make of them. python quantize.py LIBGGML_BASE.so

Bytes of Q8_0 … MXFP4 are gguf.quantize's (0.19). nf4, fp4 and int8 are written again in numpy from bitsandbytes 0.50 (functional.py, backends/default/ops.py). Of
Q4_K, Q5_K and Q6_K there is the mean squared error of ggml_quantize_chunk (llama.cpp's own search, without importances) on the same numbers."""
import base64
import ctypes
import json
import pathlib
import sys

import gguf
import numpy as np

rng = np.random.default_rng(22)
text = lambda array: base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
f32 = np.float32


def legacy_source():
    blocks = rng.standard_normal((24, 32)).astype(f32) * f32(0.02)
    blocks[1] = 0
    blocks[2] = 0.75  # all alike
    blocks[3] *= f32(1e-6)  # scales that are subnormal in f16
    blocks[4] *= f32(1e-9)  # scales that are 0 in f16
    blocks[5] = np.linspace(-8, 7, 32, dtype=f32)  # halfway between codes
    blocks[6] = np.linspace(-127, 127, 32, dtype=f32) / f32(2)
    blocks[7] = np.abs(blocks[7])
    blocks[8] = -np.abs(blocks[8])
    blocks[9, 5], blocks[9, 6] = 0.5, -0.5  # two that are farthest from 0
    blocks[10] *= f32(1e5)
    return blocks


source = legacy_source()
made = {"legacy": {"source": text(source)}}
for name in ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4"]:
    made["legacy"][name] = text(gguf.quantize(source, gguf.GGMLQuantizationType[name]))

normal = np.array([-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1], f32)
half = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3], f32) / f32(12)
codes = {"nf4": normal, "fp4": np.concatenate([half, -half])}
dynamic = [0.0, 1.0]
for i in range(7):
    count = 2**i
    step = float(f32(f32(1) - f32(0.1)) / f32(count))
    # torch.linspace: from both ends, each sum rounded once.
    borders = np.array([float(f32(0.1)) + j * step if 2 * j <= count else 1 - (count - j) * step for j in range(count + 1)]).astype(f32)
    for middle in f32(10.0 ** (i - 6)) * ((borders[:-1] + borders[1:]) / f32(2)):
        dynamic += [middle, -middle]
dynamic = np.sort(np.array(dynamic, f32))


def nearest(values, code):
    return np.argmin(np.abs(values[..., None] - code), -1).astype(np.uint8)


def four_bit(values, kind):
    count = -(-values.size // 64)
    padded = np.zeros(count * 64, f32)
    padded[: values.size] = values.ravel()
    blocks = padded.reshape(count, 64)
    absmax = np.abs(blocks).max(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(absmax[:, None] > 0, blocks * (f32(1) / absmax)[:, None], 0).astype(f32).clip(-1, 1)
    q = nearest(scaled, codes[kind])
    if kind == "fp4":
        q[(q == 0) & (scaled < 0)] = 8  # its 0 has a sign, which bitsandbytes sets
    q = q.ravel()[: values.size + values.size % 2]
    packed = (q[::2] << 4) | q[1::2]
    offset = absmax.mean(dtype=np.float64).astype(f32)
    rest = absmax - offset
    scales, nested = [], []
    for at in range(0, count, 256):
        part = rest[at : at + 256]
        nested.append(np.abs(part).max())
        scales.append(nearest(part / nested[-1], dynamic))
    return {"packed": text(packed), "absmax": text(absmax), "scales": text(np.concatenate(scales)), "nestedAbsmax": text(np.array(nested, f32)), "offset": float(offset)}




def congruent(count):
    """The numbers that `congruent` in quantize.host.test.ts makes."""
    state, values = 7, []
    for i in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        values.append(((state >> 8) / 2**24 - 0.5) * 2.0 ** -(i // 64 % 5))
    return np.array(values, f32)


wide = congruent(64 * 300 + 13)
wide[64:128] = 0
made["fourBit"] = {**{kind: four_bit(wide, kind) for kind in codes}, "dynamic": text(dynamic)}

rows = rng.standard_normal((7, 40)).astype(np.float16).astype(f32)
rows[2] = 0
scb = np.abs(rows).max(1)
with np.errstate(divide="ignore", invalid="ignore"):
    scaled = np.where(scb[:, None] > 0, rows * (f32(127) / scb)[:, None], 0).astype(f32)
made["int8"] = {"source": text(rows), "scb": text(scb), "quantized": text(np.rint(scaled).astype(np.int8))}

ggml = ctypes.CDLL(sys.argv[1])
ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]


def error(values, name):
    kind = gguf.GGMLQuantizationType[name]
    size, width = gguf.GGML_QUANT_SIZES[kind]
    packed = np.zeros((values.shape[0], values.shape[1] // size * width), np.uint8)
    ggml.ggml_quantize_chunk(int(kind), values.ctypes.data, packed.ctypes.data, 0, values.shape[0], values.shape[1], None)
    return float(((gguf.dequantize(packed, kind).astype(np.float64) - values) ** 2).mean())


matrix = (rng.standard_normal((16, 512)) * 0.03 * np.exp(rng.standard_normal((16, 1)) / 2)).astype(f32)
matrix[rng.random(matrix.shape) < 0.005] *= f32(6)  # outliers, as real matrices have
made["kQuants"] = {"source": text(matrix), **{name: error(matrix, name) for name in ["Q4_K", "Q5_K", "Q6_K"]}}
pathlib.Path(__file__).with_name("quantize.json").write_text(json.dumps(made, indent=1) + "\n")
