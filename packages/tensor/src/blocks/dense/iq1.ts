import { fromF16Bits } from "../../tensor/dtype.js";
import { type DenseType, denseType, halfAt } from "./dense-type.js";
import { iq1 } from "./grids.js";

// d (2 s + 1) (g ± 1/8): points g of a grid of 8 dimensions with 2,048 points. Layout: ggml-common.h of ggml; arithmetic: quants.py of the gguf package.

function point(index: number, scale: number, delta: number, out: Float32Array, to: number): void {
  const { points } = iq1();
  for (let i = 0; i < 8; i++) out[to + i] = scale * ((points[8 * index + i] ?? 0) + delta);
}

/** f16 d, 32 bytes of indices, 8 of 16 bits: four times 3 high bits of an index, 3 of a scale s of 32, the sign of 1/8. */
export const iq1_s: DenseType = denseType("IQ1_S", [256, 50], (bytes, at, out, to) => {
  const d = halfAt(bytes, at);
  for (let group = 0; group < 8; group++) {
    const high = bytes.getUint16(at + 34 + 2 * group, true);
    const scale = d * (2 * ((high >> 12) & 7) + 1);
    const delta = high & 0x8000 ? -0.125 : 0.125;
    for (let i = 0; i < 4; i++) {
      const index = bytes.getUint8(at + 2 + 4 * group + i) | (((high >> (3 * i)) & 7) << 8);
      point(index, scale, delta, out, to + 32 * group + 8 * i);
    }
  }
});

/** 32 bytes of indices, 16 of 3 high bits and a sign of 1/8 twice, 4 of 16 bits: four scales s of 16 in 3 bits, and 4 bits of the f16 d. */
export const iq1_m: DenseType = denseType("IQ1_M", [256, 56], (bytes, at, out, to) => {
  const scales = [0, 1, 2, 3].map((i) => bytes.getUint16(at + 48 + 2 * i, true));
  const d = fromF16Bits(scales.reduce((bits, scale, i) => bits | ((scale >> 12) << (4 * i)), 0));
  for (let i = 0; i < 32; i++) {
    const high = (bytes.getUint8(at + 32 + (i >> 1)) >> (4 * (i & 1))) & 15;
    const index = bytes.getUint8(at + i) | ((high & 7) << 8);
    const scale = d * (2 * (((scales[i >> 3] ?? 0) >> (3 * ((i >> 1) & 3))) & 7) + 1);
    point(index, scale, high & 8 ? -0.125 : 0.125, out, to + 8 * i);
  }
});
