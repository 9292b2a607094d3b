import { each, grouped, joined, lookUp, planes } from "./bits.js";
import { type BlockType, blockType, bytes, half } from "./block-type.js";

// Blocks whose codes of 4 bits are places in a table of 16. Byte j of 16 holds codes j and j + 16. Layout: ggml-common.h of ggml; arithmetic:
// quants.py of the gguf package.

/** Where more of a model's weights lie, the values are closer (ggml's kvalues_iq4nl). */
const nonLinear = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113] as const;

/** d t[q]: f16 d, 16 bytes. */
export const iq4_nl: BlockType = blockType(
  "IQ4_NL",
  [32, 18],
  { d: half(0), qs: bytes(2, 16) },
  ({ d, qs, t }) => lookUp(t, planes(qs, 16, 4)).mul(d),
  { t: nonLinear },
);

/** d (s − 32) t[q] of groups of 32, s of 6 bits: f16 d, 2 bytes of the high pairs of 8 scales, 4 of their low halves, 128. */
export const iq4_xs: BlockType = blockType(
  "IQ4_XS",
  [256, 136],
  { d: half(0), high: bytes(2, 2), low: bytes(4, 4), qs: bytes(8, 128) },
  ({ d, high, low, qs, t }) => {
    const scales = planes(low, 1, 4)
      .add(planes(high, 1, 2).mul(16))
      .cast("f32")
      .sub(32)
      .mul(d);
    return joined(grouped(lookUp(t, planes(qs, 16, 4)), 8).mul(each(scales)));
  },
  { t: nonLinear },
);

/**
 * 2^(e − 128) t[q], t the doubled values of a float of sign, 2 bits of exponent and 1 of mantissa: a byte e, 16 bytes. OCP Microscaling Formats 1.0,
 * section 5.3.3, but that e = 255 is 2^127, as ggml reads it.
 */
export const mxfp4: BlockType = blockType(
  "MXFP4",
  [32, 17],
  { e: { at: 0, bytes: 1, as: "e8m0" }, qs: bytes(1, 16) },
  ({ e, qs, t }) => lookUp(t, planes(qs, 16, 4)).mul(e),
  { t: [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12] },
);
