import { addHostProduct } from "@lowrank/tensor";

/** A matrix on the host, row by row. */
export type HostMatrix = Float64Array | Float32Array;

/** M N of matrices [rows, inner] and [inner, columns], or Mᵀ N of [inner, rows] where `isTransposed`; float64. */
export function product(
  left: HostMatrix,
  right: HostMatrix,
  rows: number,
  inner: number,
  columns: number,
  isTransposed = false,
): Float64Array {
  const sums = new Float64Array(rows * columns);
  addProduct(sums, left, right, rows, inner, columns, isTransposed);
  return sums;
}

/** Adds that to a matrix [rows, columns]. */
export function addProduct(
  sums: Float64Array,
  left: HostMatrix,
  right: HostMatrix,
  rows: number,
  inner: number,
  columns: number,
  isTransposed = false,
): void {
  const [rowStride, columnStride] = isTransposed ? [1, rows] : [inner, 1];
  const others = { of: right, rowStride: columns, columnStride: 1 };
  addHostProduct(sums, columns, { of: left, rowStride, columnStride }, others, { rows, inner, columns });
}

/** W Wᵀ [rows, rows] of a matrix [rows, columns] in float64: its lower triangle; what is above it is not all there. `result` as in `rowProducts`. */
export function gram(matrix: Float64Array, rows: number, columns: number, result?: Float64Array): Float64Array {
  const both = { of: matrix, rows, stride: columns };
  return rowProducts(both, both, columns, { isLower: true, ...(result && { result }) });
}

/** Rows of a matrix, `stride` apart. */
interface Rows {
  readonly of: HostMatrix;
  readonly rows: number;
  readonly stride: number;
}

/**
 * M Nᵀ [rows of M, rows of N], over the first `length` entries of the rows; of a Gram matrix the lower triangle is enough. It is written over the
 * first numbers of `result`, where there is memory for it.
 */
export function rowProducts(
  left: Rows,
  right: Rows,
  length: number,
  { isLower = false, result }: { readonly isLower?: boolean; readonly result?: Float64Array } = {},
): Float64Array {
  const own = { of: left.of, rowStride: left.stride, columnStride: 1 };
  const others = { of: right.of, rowStride: 1, columnStride: right.stride };
  const count = left.rows * right.rows;
  const sums = result?.subarray(0, count).fill(0) ?? new Float64Array(count);
  addHostProduct(sums, right.rows, own, others, { rows: left.rows, inner: length, columns: right.rows, isLower });
  return sums;
}

/** Mᵀ [columns, rows] of a matrix [rows, columns]. */
export function transposed(matrix: HostMatrix, rows: number, columns: number): Float64Array {
  const result = new Float64Array(rows * columns);
  // Squares of this side: what is read across and what is written across both stay in the cache.
  const side = 32;
  for (let top = 0; top < rows; top += side) {
    for (let left = 0; left < columns; left += side) {
      const [bottom, right] = [Math.min(top + side, rows), Math.min(left + side, columns)];
      for (let row = top; row < bottom; row++)
        for (let column = left; column < right; column++) result[column * rows + row] = matrix[row * columns + column] ?? 0;
    }
  }
  return result;
}
