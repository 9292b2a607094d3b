import { type DenseType, denseType, halfAt } from "./dense-type.js";
import { type Grid, iq2s, iq2xs, iq2xxs } from "./grids.js";
import { evenSigns, signed } from "./signs.js";

// d (1/2 + s) / 4 · ± g: points g of grids of 8 dimensions, with signs of their own. Layout: ggml-common.h of ggml; arithmetic: quants.py of the gguf package.

/** f16 d, 8 groups of 32: 4 bytes of indices, 32 bits of four times 7 signs and a scale s of 4. */
export const iq2_xxs: DenseType = denseType("IQ2_XXS", [256, 66], (bytes, at, out, to) => {
  const d = halfAt(bytes, at);
  for (let group = 0; group < 8; group++) {
    const from = at + 2 + 8 * group;
    const rest = bytes.getUint32(from + 4, true);
    const scale = d * (0.5 + (rest >>> 28)) * 0.25;
    for (let i = 0; i < 4; i++)
      signed(iq2xxs(), bytes.getUint8(from + i), evenSigns(rest >>> (7 * i)), scale, out, to + 32 * group + 8 * i);
  }
});

/** f16 d, 32 of 16 bits: an index of 9, 7 signs; 8 bytes of scales s of 16 in 4 bits. */
export const iq2_xs: DenseType = denseType("IQ2_XS", [256, 74], (bytes, at, out, to) => {
  const d = halfAt(bytes, at);
  for (let i = 0; i < 32; i++) {
    const code = bytes.getUint16(at + 2 + 2 * i, true);
    signed(iq2xs(), code & 511, evenSigns(code >> 9), scaleOf(d, bytes, at + 66, i >> 1), out, to + 8 * i);
  }
});

/** f16 d, 32 bytes of indices, 32 of signs, 8 of two high bits of four indices, 8 of scales s of 16 in 4 bits. */
export const iq2_s: DenseType = denseType("IQ2_S", [256, 82], (bytes, at, out, to) => {
  const d = halfAt(bytes, at);
  const grid: Grid = iq2s();
  for (let i = 0; i < 32; i++) {
    const high = (bytes.getUint8(at + 66 + (i >> 2)) >> (2 * (i & 3))) & 3;
    const index = bytes.getUint8(at + 2 + i) | (high << 8);
    signed(grid, index, bytes.getUint8(at + 34 + i), scaleOf(d, bytes, at + 74, i >> 1), out, to + 8 * i);
  }
});

/** The i-th scale of 4 bits, the low half of a byte first. */
function scaleOf(d: number, bytes: DataView, at: number, i: number): number {
  return d * (0.5 + ((bytes.getUint8(at + (i >> 1)) >> (4 * (i & 1))) & 15)) * 0.25;
}
