"""Writes blocks.json: blocks of random bytes with sane scales, and what the gguf package (0.19) reads from them. python blocks.py"""
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
scales = [0.0123, -0.75, 3e-7, 6.1e-5, -12.5, 0.0, 1000.0, -0.00098]
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
    packed = blocks.reshape(rows, -1)
    values = gguf.dequantize(packed, kind)
    made[name] = {
        "shape": list(values.shape),
        "packed": base64.b64encode(packed.tobytes()).decode(),
        "values": base64.b64encode(values.astype("<f4").tobytes()).decode(),
    }
pathlib.Path(__file__).with_name("blocks.json").write_text(json.dumps(made, indent=1) + "\n")
