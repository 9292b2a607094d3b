import { addHostProduct } from "@lowrank/tensor";
import { type HostMatrix, rowProducts, transposed } from "./product.js";

/** Numbers in (−1, 1), the same ones at each run: directions to start from need no seed of the caller's. */
export function directions(): () => number {
  let state = 0x2545f491;
  return () => {
    // xorshift32 (Marsaglia 2003).
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state / 2147483648;
  };
}

/**
 * An orthonormal basis of the columns of a matrix [rows, columns], as columns: Gram–Schmidt, twice over where it matters, which is as orthogonal
 * as Householder's (Giraud et al. 2005). A column that the ones before it span gives another direction, so that there are always as many.
 * With R = Qᵀ M this is the QR decomposition with a diagonal of R that is not negative. Needs rows ≥ columns.
 */
export function orthonormalized(matrix: HostMatrix, rows: number, columns: number): Float64Array {
  const basis = transposed(matrix, rows, columns);
  orthonormalizeRows(basis, columns, rows);
  return transposed(basis, columns, rows);
}

/** Of a row of length 1 nothing but rounding is left below this length. */
const spanned = 1e-12;

/** Rows from which those before them are taken at once. */
const blockRows = 32;

/**
 * The same of the rows of a matrix [count, length], in place: from row `first` on, where the ones before are orthonormal. What rows of a block share
 * with the ones before the block is two products (block Gram–Schmidt).
 */
export function orthonormalizeRows(matrix: Float64Array, count: number, length: number, first = 0): void {
  const random = directions();
  const shares = new Float64Array(blockRows * count);
  for (let start = first; start < count; start += blockRows) {
    const end = Math.min(start + blockRows, count);
    const block = matrix.subarray(start * length, end * length);
    if (start > 0) {
      for (let at = 0; at < end - start; at++) normalize(block.subarray(at * length, (at + 1) * length));
      const others = { of: matrix, rows: start, stride: length };
      rowProducts({ of: block, rows: end - start, stride: length }, others, length, { result: shares });
      const [left, right] = [
        { of: shares, rowStride: start, columnStride: 1 },
        { of: matrix, rowStride: length, columnStride: 1 },
      ];
      addHostProduct(block, length, left, right, { rows: end - start, inner: start, columns: length, factor: -1 });
    }
    for (let at = start; at < end; at++) {
      const row = matrix.subarray(at * length, (at + 1) * length);
      // Where a block took away much, what it left is no longer orthogonal to the rows before it.
      const left = norm(row);
      if ((start === 0 || left > spanned) && removeFrom(matrix, at, row, left < Math.SQRT1_2 ? 0 : start)) continue;
      do for (let i = 0; i < length; i++) row[i] = random();
      while (!removeFrom(matrix, at, row));
    }
  }
}

/** Gives a vector the length 1, unless it is 0. */
function normalize(vector: Float64Array): void {
  const size = norm(vector);
  if (size > 0) scale(vector, 1 / size);
}

/** Above this sum of squares, and below one over it, none that matters has left the range of numbers. */
const squaresAreExact = 1e-260;

/** The length of a vector, of numbers whose squares would be too small or too large too. */
export function norm(vector: Float64Array): number {
  let plain = 0;
  for (let i = 0; i < vector.length; i++) plain += (vector[i] ?? 0) ** 2;
  // Squares far from the ends of the range: one that was too small to be told from 0 would not count either.
  if (plain > squaresAreExact && plain < 1 / squaresAreExact) return Math.sqrt(plain);
  let most = 0;
  for (let i = 0; i < vector.length; i++) most = Math.max(most, Math.abs(vector[i] ?? 0));
  if (!(most > 0 && most < Number.POSITIVE_INFINITY)) return most;
  let sum = 0;
  for (let i = 0; i < vector.length; i++) sum += ((vector[i] ?? 0) / most) ** 2;
  return most * Math.sqrt(sum);
}

/**
 * Makes a vector orthogonal to the first `count` rows of a basis and of length 1; false where nothing but rounding is left of it. It is orthogonal to
 * those before `from` already, to rounding.
 */
export function removeFrom(basis: Float64Array, count: number, vector: Float64Array, from = 0): boolean {
  const size = norm(vector);
  if (!(size > 0)) return false;
  scale(vector, 1 / size);
  removeShares(basis, from, count, vector);
  let left = norm(vector);
  // Of a vector that kept most of its length, no more than rounding is left to remove (Daniel et al. 1976).
  if (left < Math.SQRT1_2) {
    removeShares(basis, 0, count, vector);
    left = norm(vector);
  }
  if (!(left > spanned)) return false;
  scale(vector, 1 / left);
  return true;
}

/** Takes out of a vector what it shares with rows `from` to `until` of an orthonormal basis, four rows at a time. */
export function removeShares(basis: Float64Array, from: number, until: number, vector: Float64Array): void {
  const { length } = vector;
  for (let at = from; at < until; at += 4) {
    // Past the last row the share counts as 0.
    const row = (k: number): number => Math.min(at + k, until - 1) * length;
    const [b0, b1, b2, b3] = [row(0), row(1), row(2), row(3)];
    let [s0, s1, s2, s3] = [0, 0, 0, 0];
    for (let i = 0; i < length; i++) {
      const x = vector[i] ?? 0;
      s0 += x * (basis[b0 + i] ?? 0);
      s1 += x * (basis[b1 + i] ?? 0);
      s2 += x * (basis[b2 + i] ?? 0);
      s3 += x * (basis[b3 + i] ?? 0);
    }
    if (at + 1 >= until) s1 = 0;
    if (at + 2 >= until) s2 = 0;
    if (at + 3 >= until) s3 = 0;
    for (let i = 0; i < length; i++)
      vector[i] =
        (vector[i] ?? 0) - s0 * (basis[b0 + i] ?? 0) - s1 * (basis[b1 + i] ?? 0) - s2 * (basis[b2 + i] ?? 0) - s3 * (basis[b3 + i] ?? 0);
  }
}

export function scale(vector: Float64Array, factor: number): void {
  for (let i = 0; i < vector.length; i++) vector[i] = (vector[i] ?? 0) * factor;
}
