import { mxfp4 } from "../tables.js";
import type { BlockQuantizer } from "./block-quantizer.js";

/** The code of the nearest of 0, 1, 2, 3, 4, 6, 8 and 12; halfway between two that of the smaller. */
function nearestCode(magnitude: number): number {
  if (magnitude <= 2.5) return magnitude <= 0.5 ? 0 : magnitude <= 1.5 ? 1 : 2;
  return magnitude <= 5 ? (magnitude <= 3.5 ? 3 : 4) : magnitude <= 7 ? 5 : magnitude <= 10 ? 6 : 7;
}

/** 2^(e − 128) with e = ⌊log2 max |x|⌋ + 125, codes to the nearest (OCP Microscaling Formats 1.0, section 6.3); MXFP4 of the gguf package. */
export const toMxfp4: BlockQuantizer = {
  type: mxfp4,
  mostMagnitude: Number.MAX_VALUE,
  encode: (values, from, packed, to) => {
    let most = 0;
    for (let i = from; i < from + 32; i++) most = Math.max(most, Math.abs(values[i] ?? 0));
    // In f32, as the gguf package takes the logarithm.
    const exponent = most > 0 ? Math.max(Math.floor(Math.fround(Math.log2(most))) + 125, 0) : 0;
    packed[to] = exponent;
    const inverse = 2 ** (128 - exponent);
    for (let i = 0; i < 32; i++) {
      const value = values[from + i] ?? 0;
      const code = nearestCode(Math.abs(value) * inverse);
      const at = to + 1 + (i & 15);
      packed[at] = (packed[at] ?? 0) | ((value < 0 && code > 0 ? code + 8 : code) << (i < 16 ? 0 : 4));
    }
  },
};
