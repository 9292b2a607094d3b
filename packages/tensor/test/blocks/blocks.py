"""Writes blocks.json and dense.json: blocks of random bytes with sane scales, and what the gguf package (0.19) reads from them. python blocks.py"""
import base64
import json
import pathlib

import gguf
import numpy as np

rng = np.random.default_rng(21)
# Where the f16 of each type lie in its block.
halves = {
    "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2],
    "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [],
}
# Types that are dequantised while they are loaded. IQ1_M's f16 lies in four parts, and stays random where that is finite; NVFP4 has none.
dense = {
    "IQ1_S": [0], "IQ1_M": [], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0], "TQ1_0": [52], "TQ2_0": [64], "NVFP4": [],
}
scales = [0.0123, -0.75, 3e-7, 6.1e-5, -12.5, 0.0, 1000.0, -0.00098]


def write(path: str, halves: dict) -> None:
    made, taken = {}, 0
    for name, places in halves.items():
        kind = gguf.GGMLQuantizationType[name]
        size, width = gguf.GGML_QUANT_SIZES[kind]
        rows = 2 if size == 32 else 1
        blocks = rng.integers(0, 256, (rows, 2 if size == 32 else 1, width), dtype=np.uint8)
        for block in blocks.reshape(-1, width):
            for place in places:
                block[place : place + 2] = np.frombuffer(np.float16(scales[taken % len(scales)]).tobytes(), np.uint8)
                taken += 1
            if name == "MXFP4":
                block[0] = [0, 1, 2, 127, 254, 100][taken % 6]
                taken += 1
            if name == "IQ1_M":
                block[55] &= 0xBF  # no infinity
        packed = blocks.reshape(rows, -1)
        values = gguf.dequantize(packed, kind)
        made[name] = {
            "shape": list(values.shape),
            "packed": base64.b64encode(packed.tobytes()).decode(),
            "values": base64.b64encode(values.astype("<f4").tobytes()).decode(),
        }
    pathlib.Path(__file__).with_name(path).write_text(json.dumps(made, indent=1) + "\n")


write("blocks.json", halves)
write("dense.json", dense)
