import { fromF16Bits, toF16Bits } from "../../tensor/dtype.js";
import { q4_k, q5_k, q6_k } from "../k-quants.js";
import { type BlockQuantizer, mostHalf, putHalf } from "./block-quantizer.js";
import { fitLine, fitScale, type Line } from "./search.js";

// Layouts are those of ../k-quants.ts. Which scales and codes are best is our own search: the least squared error, first of each group by itself,
// then with the groups' scales rounded to the 6 or 8 bits that they have, at last of the block's f16 with all else as it is.

const groupCount = 8;
const groupSize = 32;
const blockSize = 256;
const mostScale = 63;

const toHalf = (value: number): number => fromF16Bits(toF16Bits(value));
const clamped = (value: number, low: number, high: number): number => Math.min(Math.max(value, low), high);
const nearest = (value: number): number => Math.floor(value + 0.5);

/** What a block of Q4_K or Q5_K says: x ≈ d s q − dmin m. */
interface Affine {
  d: number;
  dmin: number;
  readonly scales: Uint8Array;
  readonly mins: Uint8Array;
  readonly codes: Uint8Array;
}

const affine = (): Affine => ({
  d: 0,
  dmin: 0,
  scales: new Uint8Array(groupCount),
  mins: new Uint8Array(groupCount),
  codes: new Uint8Array(blockSize),
});

/** Gives each number its nearest code; the squared error. */
function encodeAffine(block: Affine, values: Float32Array, from: number, mostCode: number): number {
  let error = 0;
  for (let group = 0; group < groupCount; group++) {
    const scale = block.d * (block.scales[group] ?? 0);
    const min = block.dmin * (block.mins[group] ?? 0);
    const inverse = scale > 0 ? 1 / scale : 0;
    for (let i = group * groupSize; i < (group + 1) * groupSize; i++) {
      const value = (values[from + i] ?? 0) + min;
      const code = clamped(nearest(value * inverse), 0, mostCode);
      block.codes[i] = code;
      const rest = value - scale * code;
      error += rest * rest;
    }
  }
  return error;
}

/**
 * Chooses each group's scale among the whole number that it has and its two neighbours, and its min anew: those that err least with the codes that follow.
 * Rounded by itself, the nearest scale of 6 bits is often not the best, where one group's outlier makes d large.
 */
function refineScales(block: Affine, values: Float32Array, from: number, mostCode: number): void {
  const { d, dmin, scales, mins } = block;
  if (!(d > 0)) return;
  for (let group = 0; group < groupCount; group++) {
    const [rounded, min] = [scales[group] ?? 0, mins[group] ?? 0];
    let best = Number.POSITIVE_INFINITY;
    for (let scale = Math.max(rounded - 1, 1); scale <= Math.min(rounded + 1, mostScale); scale++) {
      const step = d * scale;
      const inverse = 1 / step;
      let [q, qq] = [0, 0];
      let [x, qx] = [0, 0];
      const offset = dmin * min * inverse + 0.5;
      for (let i = from + group * groupSize; i < from + (group + 1) * groupSize; i++) {
        const value = values[i] as number; // the caller's block lies inside
        const near = (value * inverse + offset) | 0; // what is below 0 is cut off next
        const code = near < 0 ? 0 : near > mostCode ? mostCode : near;
        x += value;
        q += code;
        qq += code * code;
        qx += code * value;
      }
      const own = dmin > 0 ? clamped(nearest((step * q - x) / (groupSize * dmin)), 0, mostScale) : 0;
      const low = dmin * own;
      // Σ (x − step q + low)² − Σ x²
      const error = step * (step * qq - 2 * qx - 2 * low * q) + low * (groupSize * low + 2 * x);
      if (error >= best) continue;
      best = error;
      scales[group] = scale;
      mins[group] = own;
    }
  }
}

/** Finds d and dmin by least squares, of codes and groups' scales as they are. Leaves them where there is no such pair above 0. */
function refitAffine(block: Affine, values: Float32Array, from: number): void {
  // Normal equations of x ≈ d u − dmin m, with u = s q.
  let [uu, um, mm, ux, mx] = [0, 0, 0, 0, 0];
  for (let group = 0; group < groupCount; group++) {
    const [scale, min] = [block.scales[group] ?? 0, block.mins[group] ?? 0];
    let [q, qq, qx, x] = [0, 0, 0, 0];
    for (let i = group * groupSize; i < (group + 1) * groupSize; i++) {
      const [code, value] = [block.codes[i] ?? 0, values[from + i] ?? 0];
      q += code;
      qq += code * code;
      qx += code * value;
      x += value;
    }
    uu += scale * scale * qq;
    um += scale * min * q;
    mm += min * min * groupSize;
    ux += scale * qx;
    mx += min * x;
  }
  const determinant = uu * mm - um * um;
  if (!(determinant > 0)) {
    if (uu > 0 && ux > 0) block.d = toHalf((ux + block.dmin * um) / uu);
    return;
  }
  const [d, dmin] = [toHalf((ux * mm - mx * um) / determinant), toHalf((ux * um - mx * uu) / determinant)];
  if (!(d > 0 && dmin >= 0)) return;
  block.d = d;
  block.dmin = dmin;
}

const line: Line = { scale: 0, min: 0 };
const lines = { scales: new Float64Array(groupCount), mins: new Float64Array(groupCount) };
const [first, second] = [affine(), affine()];

/** The block that says `values` with codes up to `mostCode`. */
function affineBlock(values: Float32Array, from: number, mostCode: number): Affine {
  let [largest, lowest] = [0, 0];
  for (let group = 0; group < groupCount; group++) {
    fitLine(values, from + group * groupSize, groupSize, mostCode, line);
    lines.scales[group] = line.scale;
    lines.mins[group] = line.min;
    largest = Math.max(largest, line.scale);
    lowest = Math.max(lowest, line.min);
  }
  first.d = toHalf(largest / mostScale);
  first.dmin = toHalf(lowest / mostScale);
  for (let group = 0; group < groupCount; group++) {
    first.scales[group] = first.d > 0 ? clamped(nearest((lines.scales[group] ?? 0) / first.d), 0, mostScale) : 0;
    first.mins[group] = first.dmin > 0 ? clamped(nearest((lines.mins[group] ?? 0) / first.dmin), 0, mostScale) : 0;
  }
  refineScales(first, values, from, mostCode);
  const error = encodeAffine(first, values, from, mostCode);
  second.d = first.d;
  second.dmin = first.dmin;
  second.scales.set(first.scales);
  second.mins.set(first.mins);
  second.codes.set(first.codes);
  refitAffine(second, values, from);
  return encodeAffine(second, values, from, mostCode) < error ? second : first;
}

/** f16 d, f16 dmin, and the scales and mins of 6 bits in 12 bytes: the last four have their top pairs in the bytes of the first four. */
function putScales({ d, dmin, scales, mins }: Affine, packed: Uint8Array, to: number): void {
  putHalf(packed, to, d);
  putHalf(packed, to + 2, dmin);
  for (let i = 0; i < 4; i++) {
    const [scale, min] = [scales[i + 4] ?? 0, mins[i + 4] ?? 0];
    packed[to + 4 + i] = (scales[i] ?? 0) | ((scale >> 4) << 6);
    packed[to + 8 + i] = (mins[i] ?? 0) | ((min >> 4) << 6);
    packed[to + 12 + i] = (scale & 15) | ((min & 15) << 4);
  }
}

/** The low four bits of all codes, those of two groups in 32 bytes. */
function putLow(codes: Uint8Array, packed: Uint8Array, to: number): void {
  for (let i = 0; i < blockSize; i++) {
    const at = to + 32 * (i >> 6) + (i & 31);
    packed[at] = (packed[at] ?? 0) | (((codes[i] ?? 0) & 15) << (i & 32 ? 4 : 0));
  }
}

const mostAffine = mostScale * mostHalf;

export const toQ4_K: BlockQuantizer = {
  type: q4_k,
  mostMagnitude: mostAffine,
  encode: (values, from, packed, to) => {
    const block = affineBlock(values, from, 15);
    putScales(block, packed, to);
    putLow(block.codes, packed, to + 16);
  },
};

export const toQ5_K: BlockQuantizer = {
  type: q5_k,
  mostMagnitude: mostAffine,
  encode: (values, from, packed, to) => {
    const block = affineBlock(values, from, 31);
    putScales(block, packed, to);
    for (let i = 0; i < blockSize; i++) {
      const at = to + 16 + (i & 31);
      packed[at] = (packed[at] ?? 0) | (((block.codes[i] ?? 0) >> 4) << (i >> 5));
    }
    putLow(block.codes, packed, to + 48);
  },
};

const smallGroups = 16;
const smallSize = 16;
const half = 32;
const groupScales = new Float64Array(smallGroups);

/** What a block of Q6_K says: x ≈ d s q. */
interface Scaled {
  d: number;
  readonly scales: Int8Array;
  /** From −32 to 31. */
  readonly codes: Int8Array;
}

const scaled = (): Scaled => ({ d: 0, scales: new Int8Array(smallGroups), codes: new Int8Array(blockSize) });
const [firstScaled, secondScaled] = [scaled(), scaled()];

/** Gives each number its nearest code; the squared error. */
function encodeScaled(block: Scaled, values: Float32Array, from: number): number {
  let error = 0;
  for (let group = 0; group < smallGroups; group++) {
    const scale = block.d * (block.scales[group] ?? 0);
    const inverse = scale === 0 ? 0 : 1 / scale;
    for (let i = group * smallSize; i < (group + 1) * smallSize; i++) {
      const value = values[from + i] ?? 0;
      const code = clamped(nearest(value * inverse), -half, half - 1);
      block.codes[i] = code;
      const rest = value - scale * code;
      error += rest * rest;
    }
  }
  return error;
}

/** d by least squares, of codes and groups' scales as they are. */
function refitScaled(block: Scaled, values: Float32Array, from: number): void {
  let [uu, ux] = [0, 0];
  for (let i = 0; i < blockSize; i++) {
    const product = (block.scales[i >> 4] ?? 0) * (block.codes[i] ?? 0);
    uu += product * product;
    ux += product * (values[from + i] ?? 0);
  }
  if (uu > 0) block.d = toHalf(ux / uu);
}

function scaledBlock(values: Float32Array, from: number): Scaled {
  let farthest = 0;
  for (let group = 0; group < smallGroups; group++) {
    const scale = fitScale(values, from + group * smallSize, smallSize, half);
    groupScales[group] = scale;
    if (Math.abs(scale) > Math.abs(farthest)) farthest = scale;
  }
  firstScaled.d = toHalf(farthest / -128);
  for (let group = 0; group < smallGroups; group++)
    firstScaled.scales[group] = firstScaled.d === 0 ? 0 : clamped(nearest((groupScales[group] ?? 0) / firstScaled.d), -128, 127);
  const error = encodeScaled(firstScaled, values, from);
  secondScaled.d = firstScaled.d;
  secondScaled.scales.set(firstScaled.scales);
  secondScaled.codes.set(firstScaled.codes);
  refitScaled(secondScaled, values, from);
  return encodeScaled(secondScaled, values, from) < error ? secondScaled : firstScaled;
}

export const toQ6_K: BlockQuantizer = {
  type: q6_k,
  mostMagnitude: half * 127 * mostHalf,
  encode: (values, from, packed, to) => {
    const { d, scales, codes } = scaledBlock(values, from);
    for (let i = 0; i < blockSize; i++) {
      const code = (codes[i] ?? 0) + half;
      const low = to + 64 * (i >> 7) + (i & 63);
      packed[low] = (packed[low] ?? 0) | ((code & 15) << (i & 64 ? 4 : 0));
      const high = to + 128 + 32 * (i >> 7) + (i & 31);
      packed[high] = (packed[high] ?? 0) | ((code >> 4) << (2 * ((i >> 5) & 3)));
    }
    for (let group = 0; group < smallGroups; group++) packed[to + 192 + group] = scales[group] ?? 0;
    putHalf(packed, to + 208, d);
  },
};
