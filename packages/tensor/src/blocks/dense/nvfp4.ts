import { type DenseType, denseType } from "./dense-type.js";

/** The doubled values of a float of sign, 2 bits of exponent and 1 of mantissa. */
const codes = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12] as const;

/** Half a float without a sign of 4 bits of exponent and 3 of mantissa; the one that is none is 0. */
function halvedScale(bits: number): number {
  if (bits === 0x7f) return 0;
  const [exponent, mantissa] = [(bits >> 3) & 15, bits & 7];
  return (exponent === 0 ? mantissa * 2 ** -9 : (1 + mantissa / 8) * 2 ** (exponent - 7)) * 0.5;
}

/**
 * d q of groups of 16: 4 bytes of scales d (e4m3, without a sign), 4 times 8 bytes, of which the low halves come first. Layout: ggml-common.h of ggml;
 * arithmetic: quants.py of the gguf package.
 */
export const nvfp4: DenseType = denseType("NVFP4", [64, 36], (bytes, at, out, to) => {
  for (let group = 0; group < 4; group++) {
    const d = halvedScale(bytes.getUint8(at + group));
    for (let i = 0; i < 16; i++) {
      const code = (bytes.getUint8(at + 4 + 8 * group + (i & 7)) >> (4 * (i >> 3))) & 15;
      out[to + 16 * group + i] = d * (codes[code] ?? 0);
    }
  }
});
