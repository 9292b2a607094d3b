import { type DenseType, denseType, halfAt } from "./dense-type.js";
import { iq3s, iq3xxs } from "./grids.js";
import { evenSigns, signed } from "./signs.js";

// Points g of grids of 4 dimensions, with signs of their own. Layout: ggml-common.h of ggml; arithmetic: quants.py of the gguf package.

/** d (1/2 + s) / 2 · ± g: f16 d, 64 bytes of indices, 8 of 32 bits: four times 7 signs of 8 numbers, a scale s of 32 numbers in 4. */
export const iq3_xxs: DenseType = denseType("IQ3_XXS", [256, 98], (bytes, at, out, to) => {
  const d = halfAt(bytes, at);
  for (let i = 0; i < 64; i++) {
    const rest = bytes.getUint32(at + 66 + 4 * (i >> 3), true);
    const signs = evenSigns(rest >>> (7 * ((i >> 1) & 3))) >> (4 * (i & 1));
    signed(iq3xxs(), bytes.getUint8(at + 2 + i), signs, d * (0.5 + (rest >>> 28)) * 0.5, out, to + 4 * i);
  }
});

/** d (1 + 2 s) · ± g: f16 d, 64 bytes of indices, 8 of their ninth bits, 32 of signs, 4 of scales s of 32 numbers in 4 bits. */
export const iq3_s: DenseType = denseType("IQ3_S", [256, 110], (bytes, at, out, to) => {
  const d = halfAt(bytes, at);
  for (let i = 0; i < 64; i++) {
    const index = bytes.getUint8(at + 2 + i) | (((bytes.getUint8(at + 66 + (i >> 3)) >> (i & 7)) & 1) << 8);
    const signs = bytes.getUint8(at + 74 + (i >> 1)) >> (4 * (i & 1));
    const scale = (bytes.getUint8(at + 106 + (i >> 4)) >> (4 * ((i >> 3) & 1))) & 15;
    signed(iq3s(), index, signs, d * (1 + 2 * scale), out, to + 4 * i);
  }
});
