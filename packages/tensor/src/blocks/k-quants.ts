import type { Tensor } from "../graph/tensor.js";
import { concat } from "../ops/movement.js";
import { each, grouped, joined, part, planes, signed } from "./bits.js";
import { type BlockType, blockType, bytes, half } from "./block-type.js";

// Super-blocks of 256 in 8 or 16 groups, whose scales are small integers times one f16 of the block. Each product is exact in f32, so only the
// difference rounds. Layout: ggml-common.h of ggml; arithmetic: quants.py of the gguf package.

/** d s q − dmin m of groups of 16, s and m the low and high half of a byte: 16 bytes of them, 64 of codes of 2 bits, f16 d, f16 dmin. */
export const q2_k: BlockType = blockType(
  "Q2_K",
  [256, 84],
  { scales: bytes(0, 16), qs: bytes(16, 64), d: half(80), dmin: half(82) },
  ({ scales, qs, d, dmin }) =>
    joined(
      grouped(planes(qs, 32, 2), 16)
        .mul(each(scales.and(15).cast("f32").mul(d)))
        .sub(each(scales.shiftRight(4).cast("f32").mul(dmin))),
    ),
);

/**
 * d (s − 32) (q − 4 · (1 − h)) of groups of 16, s of 6 bits: 32 bytes of third bits h, 64 of codes of 2 bits, 12 of scales (8 of their low halves, the
 * groups' first 8 in the low bits; 4 of their high pairs), f16 d.
 */
export const q3_k: BlockType = blockType(
  "Q3_K",
  [256, 110],
  { hmask: bytes(0, 32), qs: bytes(32, 64), low: bytes(96, 8), high: bytes(104, 4), d: half(108) },
  ({ hmask, qs, low, high, d }) => {
    const scales = planes(low, 8, 4)
      .add(planes(high, 4, 2).mul(16))
      .cast("f32")
      .sub(32)
      .mul(d);
    const codes = planes(qs, 32, 2).add(planes(hmask, 32, 1).mul(4));
    return joined(grouped(codes, 16).sub(4).mul(each(scales)));
  },
);

/** The 8 scales and 8 smallest values of 6 bits in 12 bytes: of the first four in bytes 0 to 7, whose top pairs belong to the last four. */
function scalesAndMins(packed: Tensor): { readonly scales: Tensor; readonly mins: Tensor } {
  const [first, second, third] = [part(packed, 0, 4), part(packed, 4, 8), part(packed, 8, 12)];
  const last = packed.rank - 1;
  return {
    scales: concat([first.and(63), third.and(15).add(first.shiftRight(6).mul(16))], last).cast("f32"),
    mins: concat([second.and(63), third.shiftRight(4).add(second.shiftRight(6).mul(16))], last).cast("f32"),
  };
}

/** d s q − dmin m of groups of 32: f16 d, f16 dmin, 12 bytes of scales, 128 of codes of 4 bits. */
export const q4_k: BlockType = blockType(
  "Q4_K",
  [256, 144],
  { d: half(0), dmin: half(2), packed: bytes(4, 12), qs: bytes(16, 128) },
  ({ d, dmin, packed, qs }) => {
    const { scales, mins } = scalesAndMins(packed);
    return joined(
      grouped(planes(qs, 32, 4), 8)
        .mul(each(scales.mul(d)))
        .sub(each(mins.mul(dmin))),
    );
  },
);

/** As Q4_K with codes of 5 bits: f16 d, f16 dmin, 12 bytes of scales, 32 of fifth bits (bit g of byte j for number j of group g), 128. */
export const q5_k: BlockType = blockType(
  "Q5_K",
  [256, 176],
  { d: half(0), dmin: half(2), packed: bytes(4, 12), qh: bytes(16, 32), qs: bytes(48, 128) },
  ({ d, dmin, packed, qh, qs }) => {
    const { scales, mins } = scalesAndMins(packed);
    const codes = planes(qs, 32, 4).add(planes(qh, 32, 1).mul(16));
    return joined(
      grouped(codes, 8)
        .mul(each(scales.mul(d)))
        .sub(each(mins.mul(dmin))),
    );
  },
);

/** d s (q − 32) of groups of 16, s int8, q of 6 bits: 128 bytes of their low halves, 64 of their high pairs, 16 of scales, f16 d. */
export const q6_k: BlockType = blockType(
  "Q6_K",
  [256, 210],
  { ql: bytes(0, 128), qh: bytes(128, 64), scales: bytes(192, 16), d: half(208) },
  ({ ql, qh, scales, d }) => {
    const codes = planes(ql, 64, 4).add(planes(qh, 32, 2).mul(16));
    return joined(
      grouped(codes, 16)
        .sub(32)
        .mul(each(signed(scales).mul(d))),
    );
  },
);
