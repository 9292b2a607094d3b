/** A matrix on the host, row by row. */
export type HostMatrix = Float64Array | Float32Array;

/** Columns of a block of a product: six rows of this many stay in the nearest cache. */
const blockColumns = 512;

/**
 * M N of matrices [rows, inner] and [inner, columns], or Mᵀ N of [inner, rows] where `isTransposed`; float64. Two rows of the result take in
 * four rows of N at a time, so that each number that is loaded is used twice and each sum that is stored has grown by four terms.
 */
export function product(
  left: HostMatrix,
  right: HostMatrix,
  rows: number,
  inner: number,
  columns: number,
  isTransposed = false,
): Float64Array {
  // The loop below sees one type of array only.
  const wide = right instanceof Float64Array ? right : Float64Array.from(right);
  const sums = new Float64Array(rows * columns);
  const [rowStride, innerStride] = isTransposed ? [1, rows] : [inner, 1];
  addProduct(sums, columns, { of: left, rowStride, innerStride, factor: 1 }, wide, columns, rows, inner, columns);
  return sums;
}

/** The left operand of a product: its element (row, inner) is `factor · of[row · rowStride + inner · innerStride]`. */
interface LeftOperand {
  readonly of: HostMatrix;
  readonly rowStride: number;
  readonly innerStride: number;
  readonly factor: number;
}

/** Adds M N to the first columns of a matrix whose rows are `stride` apart, with rows of N `rightStride` apart. */
export function addProduct(
  sums: Float64Array,
  stride: number,
  { of: left, rowStride, innerStride, factor }: LeftOperand,
  right: Float64Array,
  rightStride: number,
  rows: number,
  inner: number,
  columns: number,
): void {
  const factors = new Float64Array(8);
  const starts = new Int32Array(4);
  for (let from = 0; from < columns; from += blockColumns) {
    const until = Math.min(from + blockColumns, columns);
    for (let row = 0; row < rows; row += 2) {
      // A last row without another is its own, by factors of 0.
      const hasOther = row + 1 < rows;
      const start = row * stride;
      for (let at = 0; at < inner; at += 4) {
        for (let k = 0; k < 4; k++) {
          // Past the last row of N the factors are 0, and the row is any other.
          const isThere = at + k < inner;
          starts[k] = (isThere ? at + k : at) * rightStride;
          const index = row * rowStride + (at + k) * innerStride;
          factors[k] = isThere ? factor * (left[index] ?? 0) : 0;
          factors[4 + k] = isThere && hasOther ? factor * (left[index + rowStride] ?? 0) : 0;
        }
        addRows(sums, start, hasOther ? start + stride : start, right, starts, factors, from, until);
      }
    }
  }
}

/** Adds four rows of `right`, by four factors each, to two rows of `sums`, which begin at `start` and `other`. */
function addRows(
  sums: Float64Array,
  start: number,
  other: number,
  right: Float64Array,
  starts: Int32Array,
  factors: Float64Array,
  from: number,
  until: number,
): void {
  const [r0 = 0, r1 = 0, r2 = 0, r3 = 0] = starts;
  const [a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0] = factors;
  for (let column = from; column < until; column++) {
    const x0 = right[r0 + column] ?? 0;
    const x1 = right[r1 + column] ?? 0;
    const x2 = right[r2 + column] ?? 0;
    const x3 = right[r3 + column] ?? 0;
    sums[start + column] = (sums[start + column] ?? 0) + a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3;
    sums[other + column] = (sums[other + column] ?? 0) + b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3;
  }
}

/** W Wᵀ [rows, rows] of a matrix [rows, columns] in float64: its lower triangle; above it is whatever a tile of 3 × 3 computed. */
export function gram(matrix: Float64Array, rows: number, columns: number): Float64Array {
  return rowProducts({ of: matrix, rows, stride: columns }, { of: matrix, rows, stride: columns }, columns, true);
}

/** Rows of a matrix, `stride` apart. */
interface Rows {
  readonly of: Float64Array;
  readonly rows: number;
  readonly stride: number;
}

/** M Nᵀ [rows of M, rows of N], over the first `length` entries of the rows; of a Gram matrix the lower triangle is enough. */
export function rowProducts(left: Rows, right: Rows, length: number, isLower = false): Float64Array {
  const result = new Float64Array(left.rows * right.rows);
  const tile = new Float64Array(9);
  for (let row = 0; row < left.rows; row += 3) {
    const end = isLower ? row + 1 : right.rows;
    for (let column = 0; column < end; column += 3) {
      dots(left, row, right, column, length, tile);
      for (let i = 0; i < 3 && row + i < left.rows; i++)
        for (let j = 0; j < 3 && column + j < right.rows; j++) result[(row + i) * right.rows + column + j] = tile[3 * i + j] ?? 0;
    }
  }
  return result;
}

/** The products of three rows with three others; a row past the last is the last. */
function dots(left: Rows, row: number, right: Rows, column: number, length: number, tile: Float64Array): void {
  const [matrix, others] = [left.of, right.of];
  const i0 = row * left.stride;
  const i1 = Math.min(row + 1, left.rows - 1) * left.stride;
  const i2 = Math.min(row + 2, left.rows - 1) * left.stride;
  const j0 = column * right.stride;
  const j1 = Math.min(column + 1, right.rows - 1) * right.stride;
  const j2 = Math.min(column + 2, right.rows - 1) * right.stride;
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  let s4 = 0;
  let s5 = 0;
  let s6 = 0;
  let s7 = 0;
  let s8 = 0;
  for (let at = 0; at < length; at++) {
    const x = matrix[i0 + at] ?? 0;
    const y = matrix[i1 + at] ?? 0;
    const z = matrix[i2 + at] ?? 0;
    const u = others[j0 + at] ?? 0;
    const v = others[j1 + at] ?? 0;
    const w = others[j2 + at] ?? 0;
    s0 += x * u;
    s1 += x * v;
    s2 += x * w;
    s3 += y * u;
    s4 += y * v;
    s5 += y * w;
    s6 += z * u;
    s7 += z * v;
    s8 += z * w;
  }
  tile[0] = s0;
  tile[1] = s1;
  tile[2] = s2;
  tile[3] = s3;
  tile[4] = s4;
  tile[5] = s5;
  tile[6] = s6;
  tile[7] = s7;
  tile[8] = s8;
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
