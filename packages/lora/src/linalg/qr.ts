/** A matrix on the host, row by row. */
export type HostMatrix = Float64Array | Float32Array;

/** Numbers in (−1, 1), the same ones at each run: directions to start from need no seed of the caller's. */
export function* directions(): Generator<number, never> {
  let state = 0x2545f491;
  for (;;) {
    // xorshift32 (Marsaglia 2003).
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    yield state / 2147483648;
  }
}

/**
 * An orthonormal basis of the columns of a matrix [rows, columns], as columns: Gram–Schmidt, twice over, which is as orthogonal as
 * Householder's (Giraud et al. 2005). A column that the ones before it span gives another direction, so that there are always as many.
 * With R = Qᵀ M this is the QR decomposition with a diagonal of R that is not negative. Needs rows ≥ columns.
 */
export function orthonormalized(matrix: HostMatrix, rows: number, columns: number): Float64Array {
  const random = directions();
  const basis: Float64Array[] = [];
  for (let column = 0; column < columns; column++) {
    let vector = Float64Array.from({ length: rows }, (_, row) => matrix[row * columns + column] ?? 0);
    let size = norm(vector);
    while (!removeFrom(basis, vector, size)) {
      vector = Float64Array.from({ length: rows }, () => random.next().value);
      size = norm(vector);
    }
    basis.push(vector);
  }
  const result = new Float64Array(rows * columns);
  for (const [column, vector] of basis.entries()) for (let row = 0; row < rows; row++) result[row * columns + column] = vector[row] ?? 0;
  return result;
}

function norm(vector: Float64Array): number {
  return Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
}

/** Makes a vector orthogonal to the basis and of length 1; false where nothing but rounding is left of its `size`. */
function removeFrom(basis: readonly Float64Array[], vector: Float64Array, size: number): boolean {
  for (let pass = 0; pass < 2; pass++) {
    for (const direction of basis) {
      let share = 0;
      for (let row = 0; row < vector.length; row++) share += (direction[row] ?? 0) * (vector[row] ?? 0);
      for (let row = 0; row < vector.length; row++) vector[row] = (vector[row] ?? 0) - share * (direction[row] ?? 0);
    }
  }
  const left = norm(vector);
  if (!(left > 1e-12 * size)) return false;
  for (let row = 0; row < vector.length; row++) vector[row] = (vector[row] ?? 0) / left;
  return true;
}

/** M N of matrices [rows, inner] and [inner, columns], or Mᵀ N of [inner, rows] where `isTransposed`; float64. */
export function product(
  left: HostMatrix,
  right: HostMatrix,
  rows: number,
  inner: number,
  columns: number,
  isTransposed = false,
): Float64Array {
  const result = new Float64Array(rows * columns);
  // Rows of `right` are added up in place, so that memory is read in its own order whichever way `left` lies.
  const add = (row: number, at: number, factor: number): void => {
    if (factor === 0) return;
    const [to, from] = [row * columns, at * columns];
    for (let column = 0; column < columns; column++)
      result[to + column] = (result[to + column] ?? 0) + factor * (right[from + column] ?? 0);
  };
  if (isTransposed) for (let at = 0; at < inner; at++) for (let row = 0; row < rows; row++) add(row, at, left[at * rows + row] ?? 0);
  else for (let row = 0; row < rows; row++) for (let at = 0; at < inner; at++) add(row, at, left[row * inner + at] ?? 0);
  return result;
}

/** Mᵀ [columns, rows] of a matrix [rows, columns]. */
export function transposed(matrix: HostMatrix, rows: number, columns: number): Float64Array {
  const result = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) result[column * rows + row] = matrix[row * columns + column] ?? 0;
  return result;
}
