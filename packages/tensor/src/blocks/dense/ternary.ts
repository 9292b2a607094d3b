import { type DenseType, denseType, halfAt } from "./dense-type.js";

// d q, q of −1, 0 and 1. Layout: ggml-common.h of ggml; arithmetic: quants.py of the gguf package.

/**
 * 48 bytes of five q each and 4 of four, as digits of base 3 of a fraction of 256, the highest first; f16 d. Digit n of 32 bytes one after another comes
 * before digit n + 1, then the same of 16 bytes, then of 4.
 */
export const tq1_0: DenseType = denseType("TQ1_0", [256, 54], (bytes, at, out, to) => {
  const d = halfAt(bytes, at + 52);
  let next = to;
  for (const [from, count, digits] of [
    [0, 32, 5],
    [32, 16, 5],
    [48, 4, 4],
  ] as const)
    for (let digit = 0, power = 1; digit < digits; digit++, power *= 3)
      for (let i = 0; i < count; i++) out[next++] = d * (((((bytes.getUint8(at + from + i) * power) & 255) * 3) >> 8) - 1);
});

/** 64 bytes of four q in 2 bits: of 32 bytes one after another the low bits first; f16 d. */
export const tq2_0: DenseType = denseType("TQ2_0", [256, 66], (bytes, at, out, to) => {
  const d = halfAt(bytes, at + 64);
  for (let i = 0; i < 256; i++) {
    const [half, plane, byte] = [i >> 7, (i >> 5) & 3, i & 31];
    out[to + i] = d * (((bytes.getUint8(at + 32 * half + byte) >> (2 * plane)) & 3) - 1);
  }
});
