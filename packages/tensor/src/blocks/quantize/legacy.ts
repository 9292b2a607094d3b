import { q4_0, q4_1, q5_0, q5_1, q8_0 } from "../legacy.js";
import { type BlockQuantizer, inverseOf, mostHalf, putHalf } from "./block-quantizer.js";

// The arithmetic is f32 and its roundings are those of quants.py of the gguf package (which are those of ggml's reference), so that bytes are equal.

const f32 = Math.fround;
const count = 32;

/** d = max |x| / 127, codes x / d rounded half away from zero. */
export const toQ8_0: BlockQuantizer = {
  type: q8_0,
  mostMagnitude: 127 * mostHalf,
  encode: (values, from, packed, to) => {
    let most = 0;
    for (let i = from; i < from + count; i++) most = Math.max(most, Math.abs(values[i] ?? 0));
    const d = f32(most / 127);
    const inverse = inverseOf(d);
    putHalf(packed, to, d);
    for (let i = 0; i < count; i++) {
      const scaled = f32((values[from + i] ?? 0) * inverse);
      packed[to + 2 + i] = scaled + (scaled < 0 ? -0.5 : 0.5);
    }
  },
};

/** Where codes of a block lie: the low halves of two 16 numbers apart in a byte, fifth bits in the order of the numbers. */
interface Places {
  readonly codes: number;
  readonly fifthBits: number | null;
}

function putCode(packed: Uint8Array, to: number, { codes, fifthBits }: Places, i: number, code: number): void {
  const at = to + codes + (i & 15);
  packed[at] = (packed[at] ?? 0) | ((code & 15) << (i < 16 ? 0 : 4));
  if (fifthBits === null) return;
  const high = to + fifthBits + (i >> 3);
  packed[high] = (packed[high] ?? 0) | ((code >> 4) << (i & 7));
}

/** Codes 0 to 2 `half` − 1 around `half`: the number that is farthest from 0 becomes 0, so that d may be negative. */
const encodeAround =
  (half: number, places: Places): BlockQuantizer["encode"] =>
  (values, from, packed, to) => {
    let farthest = 0;
    for (let i = from; i < from + count; i++) {
      const value = values[i] ?? 0;
      if (Math.abs(value) > Math.abs(farthest)) farthest = value;
    }
    const d = f32(farthest / -half);
    const inverse = inverseOf(d);
    putHalf(packed, to, d);
    for (let i = 0; i < count; i++) {
      const code = f32(f32((values[from + i] ?? 0) * inverse) + (half + 0.5)) | 0;
      putCode(packed, to, places, i, Math.min(code, 2 * half - 1));
    }
  };

/** Codes 0 to `most` from the smallest number, m, to the largest. */
const encodeFrom =
  (most: number, places: Places): BlockQuantizer["encode"] =>
  (values, from, packed, to) => {
    let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    for (let i = from; i < from + count; i++) {
      const value = values[i] ?? 0;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    const d = f32(f32(high - low) / most);
    const inverse = inverseOf(d);
    putHalf(packed, to, d);
    putHalf(packed, to + 2, low);
    for (let i = 0; i < count; i++) {
      const code = f32(f32(f32((values[from + i] ?? 0) - low) * inverse) + 0.5) | 0;
      putCode(packed, to, places, i, Math.min(code, most));
    }
  };

/** d = −x / 8 of the x that is farthest from 0. */
export const toQ4_0: BlockQuantizer = {
  type: q4_0,
  mostMagnitude: 8 * mostHalf,
  encode: encodeAround(8, { codes: 2, fifthBits: null }),
};

/** d = (max − min) / 15, m = min. */
export const toQ4_1: BlockQuantizer = { type: q4_1, mostMagnitude: mostHalf, encode: encodeFrom(15, { codes: 4, fifthBits: null }) };

/** d = −x / 16 of the x that is farthest from 0. */
export const toQ5_0: BlockQuantizer = { type: q5_0, mostMagnitude: 16 * mostHalf, encode: encodeAround(16, { codes: 6, fifthBits: 2 }) };

/** d = (max − min) / 31, m = min. */
export const toQ5_1: BlockQuantizer = { type: q5_1, mostMagnitude: mostHalf, encode: encodeFrom(31, { codes: 8, fifthBits: 4 }) };
