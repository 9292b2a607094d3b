import { ShapeError } from "../../tensor/errors.js";
import { type Codebook, codebook } from "./codebook.js";
import { checkFinite } from "./finite.js";

/** Quantiles of a normal distribution, scaled to [−1, 1], with an exact 0 (QLoRA, Dettmers et al. 2023, appendix E). */
const normalFloat = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0,
  0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
  0.7229568362236023, 1,
];

/** Floats of a sign, two bits of exponent and one of fraction, by their bits, over the largest (12); bitsandbytes' fp4. */
const float4 = [0, 0.0625, 8, 12, 4, 6, 2, 3].map((value) => Math.fround(value / 12));

/** The types of bitsandbytes' 4 bits. */
export type FourBitType = "nf4" | "fp4";

const codebooks: Readonly<Record<FourBitType, Codebook>> = {
  nf4: codebook(normalFloat),
  fp4: codebook([...float4, ...float4.map((value) => -value)]),
};

/**
 * The 256 values of bitsandbytes' dynamic map with a sign: for each power of ten from 10⁻⁶ to 1, twice as many steps between a tenth of it and itself as
 * for the one before, their middles; and 0 and 1 (Dettmers 2016, 8-Bit Approximations for Parallelism in Deep Learning; `create_dynamic_map`).
 */
function dynamicMap(): number[] {
  const f32 = Math.fround;
  const values = [0, 1];
  for (let power = 0; power < 7; power++) {
    const count = 2 ** power;
    const step = f32(f32(1 - f32(0.1)) / count);
    // As torch.linspace: from both ends, each sum rounded once.
    const border = (i: number): number => f32(2 * i <= count ? f32(0.1) + i * step : 1 - (count - i) * step);
    for (let i = 0; i < count; i++) {
      const middle = f32(f32(10 ** (power - 6)) * f32(f32(border(i) + border(i + 1)) / 2));
      values.push(middle, -middle);
    }
  }
  return values.sort((a, b) => a - b);
}

const dynamic = codebook(dynamicMap());

/** Scales in 8 bits (double quantization), as `nestedScales` reads them. */
export interface NestedBlocks {
  /** One a block of numbers. */
  readonly absmax: Uint8Array;
  /** [256] */
  readonly code: Float32Array;
  /** One a block of scales. */
  readonly nestedAbsmax: Float32Array;
  readonly offset: number;
  readonly blockSize: number;
}

/** Numbers in 4 bits, as `fourBitValues` reads them. */
export interface FourBitBlocks {
  /** Two codes a byte, the first in the high half; ⌈n / 2⌉. */
  readonly packed: Uint8Array;
  /** [16] */
  readonly code: Float32Array;
  readonly blockSize: number;
  /** The largest magnitude of each block, or what is quantized in its place. */
  readonly scales: Float32Array | NestedBlocks;
}

/** How numbers are put into 4 bits. */
export interface FourBitOptions {
  /** Numbers that share a scale. Default 64. */
  readonly blockSize?: number;
  /** Whether the scales are quantized in turn, which takes 0.127 bits a number in place of 0.5. Default true. */
  readonly isNested?: boolean;
}

/** Numbers of a block, where nothing else is said. */
export const fourBitSize = 64;
/** Scales of a block. */
export const nestedSize = 256;

/**
 * Numbers in nf4 or fp4: each block's codes are the nearest to x / max |x|. Equal to bitsandbytes' quantize_4bit but for numbers halfway between two codes,
 * where its back ends differ. QLoRA (Dettmers et al. 2023), sections 2 and 3. Throws NotFiniteError for a number that is infinite or NaN, with `name`.
 */
export function quantizeFourBit(type: FourBitType, values: Float32Array, options: FourBitOptions = {}, name?: string): FourBitBlocks {
  const quantizer = new FourBitQuantizer(type, values.length, options);
  quantizer.add(values, name);
  return quantizer.finish();
}

/** As `quantizeFourBit`, of numbers that come in parts. */
export class FourBitQuantizer {
  readonly #codes: Codebook;
  readonly #packed: Uint8Array;
  readonly #absmax: Float32Array;
  readonly #blockSize: number;
  readonly #isNested: boolean;
  #done = 0;

  /** `size`: of all parts together. Throws ShapeError for a block size that is not even. */
  constructor(
    type: FourBitType,
    readonly size: number,
    { blockSize = fourBitSize, isNested = true }: FourBitOptions = {},
  ) {
    if (!(Number.isInteger(blockSize) && blockSize > 0 && blockSize % 2 === 0))
      throw new ShapeError(`quantizeFourBit: blocks of ${blockSize}. They are of an even count, as 64.`);
    this.#codes = codebooks[type];
    this.#packed = new Uint8Array(Math.ceil(size / 2));
    this.#absmax = new Float32Array(Math.ceil(size / blockSize));
    this.#blockSize = blockSize;
    this.#isNested = isNested;
  }

  /** Numbers of whole blocks, but for the last. Throws NotFiniteError as `quantizeFourBit` does, ShapeError for parts that do not fit. */
  add(values: Float32Array, name = "quantizeFourBit"): void {
    const start = this.#done;
    if (start % this.#blockSize !== 0 || start + values.length > this.size)
      throw new ShapeError(
        `quantizeFourBit: ${values.length} numbers behind ${start} of ${this.size}, in blocks of ${this.#blockSize}. Give whole blocks.`,
      );
    checkFinite(values, name);
    for (let from = 0; from < values.length; from += this.#blockSize) this.#block(values, from, start + from);
    this.#done += values.length;
  }

  #block(values: Float32Array, from: number, at: number): void {
    const until = Math.min(from + this.#blockSize, values.length);
    let most = 0;
    for (let i = from; i < until; i++) most = Math.max(most, Math.abs(values[i] ?? 0));
    this.#absmax[at / this.#blockSize] = most;
    const inverse = Math.fround(1 / most);
    // A block of which nothing is left at this scale is 0 throughout.
    const scale = Number.isFinite(inverse) ? inverse : 0;
    const codes = this.#codes;
    const code = (i: number): number => codes.nearest(i < until ? Math.max(-1, Math.min(1, Math.fround((values[i] ?? 0) * scale))) : 0);
    for (let i = from, to = at / 2; i < until; i += 2, to++) this.#packed[to] = (code(i) << 4) | code(i + 1);
  }

  /** Throws ShapeError where numbers are still missing. */
  finish(): FourBitBlocks {
    if (this.#done !== this.size) throw new ShapeError(`quantizeFourBit: ${this.#done} numbers of ${this.size} were given.`);
    return {
      packed: this.#packed,
      code: this.#codes.values,
      blockSize: this.#blockSize,
      scales: this.#isNested ? nested(this.#absmax) : this.#absmax,
    };
  }
}

/** Scales less their mean, in blocks of 256 by the dynamic map: the nearest to x / max |x|. bitsandbytes' compress_statistics. */
function nested(absmax: Float32Array): NestedBlocks {
  const offset = Math.fround(absmax.reduce((sum, value) => sum + value, 0) / Math.max(absmax.length, 1));
  const codes = new Uint8Array(absmax.length);
  const nestedAbsmax = new Float32Array(Math.ceil(absmax.length / nestedSize));
  const rest = (i: number): number => Math.fround((absmax[i] ?? 0) - offset);
  for (let block = 0; block < nestedAbsmax.length; block++) {
    const until = Math.min((block + 1) * nestedSize, absmax.length);
    let most = 0;
    for (let i = block * nestedSize; i < until; i++) most = Math.max(most, Math.abs(rest(i)));
    nestedAbsmax[block] = most;
    for (let i = block * nestedSize; i < until; i++) codes[i] = dynamic.nearest(most > 0 ? Math.fround(rest(i) / most) : 0);
  }
  return { absmax: codes, code: dynamic.values, nestedAbsmax, offset, blockSize: nestedSize };
}
