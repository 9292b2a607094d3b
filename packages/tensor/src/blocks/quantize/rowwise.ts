import { fromF16Bits, toF16Bits } from "../../tensor/dtype.js";
import { ShapeError } from "../../tensor/errors.js";
import { mostHalf } from "./block-quantizer.js";
import { checkFinite } from "./finite.js";

/** Rows in 8 bits, as `rowwiseValues` reads them. */
export interface RowwiseInt8 {
  /** Two's complement, row by row. */
  readonly quantized: Uint8Array;
  /** The largest magnitude of each row. */
  readonly scb: Float32Array;
}

/** The smallest normal f16, by its bits as f32. */
const leastNormal = 0x38800000;

/** Rounds numbers within f16's range to f16, in place; `bits` is the same memory. */
function roundToHalf(values: Float32Array, bits: Uint32Array): void {
  for (let i = 0; i < bits.length; i++) {
    const own = bits[i] ?? 0;
    if ((own & 0x7fffffff) >= leastNormal) bits[i] = (own + 0xfff + ((own >>> 13) & 1)) & ~0x1fff;
    else values[i] = fromF16Bits(toF16Bits(values[i] ?? 0));
  }
}

/**
 * `rows` rows of numbers, rounded to f16 first: x · 127 / max |x| of each row, rounded half to even. LLM.int8() (Dettmers et al. 2022); bitsandbytes'
 * int8_vectorwise_quant. Throws NotFiniteError for a number that f16 does not have, ShapeError where rows are not whole.
 */
export function quantizeRowwise(values: Float32Array, rows: number, name = "quantizeRowwise"): RowwiseInt8 {
  const width = values.length / rows;
  if (!(Number.isInteger(width) && rows > 0)) throw new ShapeError(`quantizeRowwise: ${values.length} numbers are not ${rows} rows.`);
  checkFinite(values, name, "f16", mostHalf);
  const quantized = new Uint8Array(values.length);
  const scb = new Float32Array(rows);
  const halves = new Float32Array(width);
  const bits = new Uint32Array(halves.buffer);
  for (let row = 0; row < rows; row++) {
    halves.set(values.subarray(row * width, (row + 1) * width));
    roundToHalf(halves, bits);
    let most = 0;
    for (let i = 0; i < width; i++) most = Math.max(most, Math.abs(halves[i] ?? 0));
    scb[row] = most;
    const scale = most > 0 ? Math.fround(127 / most) : 0;
    for (let i = 0; i < width; i++) quantized[row * width + i] = toEven(Math.fround((halves[i] ?? 0) * scale));
  }
  return { quantized, scb };
}

/** Adding and taking away 1.5 · 2⁵² rounds a float64 to a whole number, ties to even. */
const toEven = (value: number): number => value + 6755399441055744 - 6755399441055744;
