import { planes, signed } from "./bits.js";
import { type BlockType, blockType, bytes, half } from "./block-type.js";

// Blocks of 32 with a scale d, and some with a smallest value m, both f16; q are the codes. Byte j of `qs` holds codes j and j + 16, and the
// fifth bits lie in the order of the codes. Layout: ggml-common.h of ggml; arithmetic: quants.py of the gguf package.

/** d (int8): f16 d, 32 bytes. */
export const q8_0: BlockType = blockType("Q8_0", [32, 34], { d: half(0), qs: bytes(2, 32) }, ({ d, qs }) => signed(qs).mul(d));

/** d (q − 8): f16 d, 16 bytes. */
export const q4_0: BlockType = blockType("Q4_0", [32, 18], { d: half(0), qs: bytes(2, 16) }, ({ d, qs }) =>
  planes(qs, 16, 4).cast("f32").sub(8).mul(d),
);

/** d q + m: f16 d, f16 m, 16 bytes. */
export const q4_1: BlockType = blockType("Q4_1", [32, 20], { d: half(0), m: half(2), qs: bytes(4, 16) }, ({ d, m, qs }) =>
  planes(qs, 16, 4).cast("f32").mul(d).add(m),
);

/** d (q − 16), q of 5 bits: f16 d, 4 bytes of fifth bits, 16 bytes. */
export const q5_0: BlockType = blockType("Q5_0", [32, 22], { d: half(0), qh: bytes(2, 4), qs: bytes(6, 16) }, ({ d, qh, qs }) =>
  planes(qs, 16, 4)
    .add(planes(qh, 1, 1).mul(16))
    .cast("f32")
    .sub(16)
    .mul(d),
);

/** d q + m, q of 5 bits: f16 d, f16 m, 4 bytes of fifth bits, 16 bytes. */
export const q5_1: BlockType = blockType(
  "Q5_1",
  [32, 24],
  { d: half(0), m: half(2), qh: bytes(4, 4), qs: bytes(8, 16) },
  ({ d, m, qh, qs }) =>
    planes(qs, 16, 4)
      .add(planes(qh, 1, 1).mul(16))
      .cast("f32")
      .mul(d)
      .add(m),
);
