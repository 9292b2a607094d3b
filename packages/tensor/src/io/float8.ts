import { CheckpointError, showShape } from "../tensor/errors.js";
import { type Shape, sizeOf } from "../tensor/shape.js";
import type { SafetensorsEntry } from "./header.js";

/** What the numbers of a tensor in 8 bits are multiplied by: one for all, or one a block of rows and columns, for each matrix of the leading axes. */
export interface BlockScales {
  readonly values: ArrayLike<number>;
  readonly shape: Shape;
  /** Rows and columns of a block, where that is known; the last ones may be smaller. */
  readonly block?: readonly [rows: number, columns: number] | null;
}

/** The 8-bit float that is read: sign, 4 bits of exponent with bias 7, 3 of mantissa; no infinity, and all ones is NaN (Micikevicius et al. 2022). */
export const scaledDType = "F8_E4M3";

/** The number that each byte stands for. */
const numbers: Float32Array = Float32Array.from({ length: 256 }, (_, byte) => {
  const [exponent, mantissa] = [(byte >> 3) & 15, byte & 7];
  if (exponent === 15 && mantissa === 7) return Number.NaN;
  const magnitude = exponent === 0 ? (mantissa / 8) * 2 ** -6 : (1 + mantissa / 8) * 2 ** (exponent - 7);
  return byte < 128 ? magnitude : -magnitude;
});

/** Rows and columns of the blocks in which models ship (DeepSeek-V3 and what followed it). */
const usualBlock = 128;

/** Rows or columns that one scale of `count` is for, the ones `said` where they fit; null where that many scales do not divide `size`. */
function blockSize(size: number, count: number, said: number = usualBlock): number | null {
  for (const length of [said, usualBlock]) if (Math.ceil(size / length) === count) return length;
  return count > 0 && size % count === 0 ? size / count : null;
}

/** Numbers of a tensor as its scales make them. */
export class ScaledFloats {
  readonly #columns: number;
  readonly #rows: number;
  readonly #blockRows: number;
  readonly #blockColumns: number;
  readonly #gridRows: number;
  readonly #gridColumns: number;

  /** Throws CheckpointError where the scales are not one for all or one a block, of 128 x 128 or of equal ones. */
  constructor(
    file: string,
    readonly entry: Pick<SafetensorsEntry, "name" | "shape">,
    readonly scales: BlockScales,
  ) {
    const { shape } = entry;
    const isOne = sizeOf(scales.shape) === 1;
    const [rows = 1, columns = 1] = shape.length < 2 ? [1, shape[0]] : shape.slice(-2);
    const [gridRows = 1, gridColumns = 1] = isOne ? [1, 1] : scales.shape.slice(-2);
    const [blockRows, blockColumns] = isOne
      ? [rows, columns]
      : [blockSize(rows, gridRows, scales.block?.[0]), blockSize(columns, gridColumns, scales.block?.[1])];
    const isGrid = scales.shape.length === shape.length && scales.shape.slice(0, -2).every((size, axis) => size === shape[axis]);
    if (blockRows === null || blockColumns === null || !(isOne || (isGrid && shape.length >= 2)))
      throw new CheckpointError(
        `${file}: tensor "${entry.name}" has the shape ${showShape(shape)}, and its scales ${showShape(scales.shape)}, which is neither one scale nor one for each block of ${usualBlock} x ${usualBlock}. Fetch both of one checkpoint.`,
        file,
      );
    [this.#rows, this.#columns, this.#gridRows, this.#gridColumns] = [rows, columns, gridRows, gridColumns];
    [this.#blockRows, this.#blockColumns] = [Math.max(1, blockRows), Math.max(1, blockColumns)];
  }

  /** The numbers that bytes from element `at` on stand for. */
  from(at: number, bytes: Uint8Array): Float32Array {
    const result = new Float32Array(bytes.length);
    const columns = Math.max(1, this.#columns);
    for (let done = 0; done < bytes.length; ) {
      const element = at + done;
      const row = Math.floor(element / columns);
      const column = element - row * columns;
      const end = Math.min(
        bytes.length,
        done + Math.min(columns, (Math.floor(column / this.#blockColumns) + 1) * this.#blockColumns) - column,
      );
      const scale = this.#scaleAt(row, column);
      for (; done < end; done++) result[done] = (numbers[bytes[done] as number] as number) * scale; // a byte, and 256 numbers
    }
    return result;
  }

  #scaleAt(row: number, column: number): number {
    const { values, shape } = this.scales;
    if (sizeOf(shape) === 1) return Math.fround(values[0] ?? 1);
    const matrix = Math.floor(row / this.#rows);
    const gridRow = Math.floor((row - matrix * this.#rows) / this.#blockRows);
    const at = (matrix * this.#gridRows + gridRow) * this.#gridColumns + Math.floor(column / this.#blockColumns);
    return Math.fround(values[at] ?? 1); // of a grid that was found to fit
  }
}
