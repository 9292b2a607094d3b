import { EVD, Matrix, SVD } from "ml-matrix";
import { directions, type HostMatrix, orthonormalized, product, transposed } from "./qr.js";

/** M = U diag(S) Vᵀ, cut to its `s.length` = k largest singular values, which fall. */
export interface Decomposition {
  /** Left singular vectors as columns, [rows, k]. */
  readonly u: Float64Array;
  /** Singular values, [k]. */
  readonly s: Float64Array;
  /** Right singular vectors as columns, [columns, k]. */
  readonly v: Float64Array;
}

/** Matrices whose smaller side is at most this are decomposed whole, in about a second at the limit. */
const exactSide = 448;

/** Singular values are taken as found when a pass moves none of them by more than this share of the first. */
const settled = 1e-12;

/**
 * The singular value decomposition of a matrix [rows, columns], or its `rank` largest triplets, in float64 on the host. Small matrices, and
 * ranks near the full one, are decomposed exactly (Golub & Kahan 1965); of larger ones the leading subspace is found from random directions
 * (Halko, Martinsson & Tropp 2011, algorithm 4.4), by `passes` of subspace iteration, or until the values stand still where that is absent.
 * The sign of each triplet is such that the largest entry of its right vector is positive. torch.linalg.svd, torch.svd_lowrank.
 */
export function svd(
  matrix: HostMatrix,
  rows: number,
  columns: number,
  rank: number = Math.min(rows, columns),
  passes?: number,
): Decomposition {
  const side = Math.min(rows, columns);
  const kept = Math.min(rank, side);
  // Directions beyond those asked for make the iteration converge faster; with them it must still be clearly smaller than the matrix.
  const width = 2 * kept + 10;
  const isExact = passes === undefined ? side <= exactSide || 3 * width > side : width >= side;
  return withSigns(isExact ? exact(matrix, rows, columns, kept) : truncated(matrix, rows, columns, kept, width, passes), rows, columns);
}

/** Smaller sides up to which the eigenvectors of a Gram matrix are faster than subspace iteration. */
const gramSide = 192;

/**
 * The `rank` largest singular values and their right vectors, several times faster than `svd` and good to single precision: of small matrices
 * out of the eigenvectors of M Mᵀ or Mᵀ M, whichever is smaller, of larger ones by a few passes of subspace iteration.
 */
export function leadingDirections(matrix: HostMatrix, rows: number, columns: number, rank: number): Pick<Decomposition, "s" | "v"> {
  const side = Math.min(rows, columns);
  if (side > gramSide) return svd(matrix, rows, columns, rank, 4);
  const kept = Math.min(rank, side);
  const isTall = rows >= columns;
  const gram = isTall
    ? product(matrix, matrix, columns, rows, columns, true)
    : product(matrix, transposed(matrix, rows, columns), rows, columns, rows);
  const { realEigenvalues, eigenvectorMatrix } = new EVD(Matrix.from1DArray(side, side, Array.from(gram)), { assumeSymmetric: true });
  const order = realEigenvalues.map((_, i) => i).sort((a, b) => (realEigenvalues[b] ?? 0) - (realEigenvalues[a] ?? 0));
  const s = Float64Array.from({ length: kept }, (_, k) => Math.sqrt(Math.max(realEigenvalues[order[k] ?? 0] ?? 0, 0)));
  // A Gram matrix squares the values: the smallest ones drown in its rounding, and with them their directions.
  if (!((s[kept - 1] ?? 0) > 1e-5 * (s[0] ?? 0))) return svd(matrix, rows, columns, rank);
  const vectors = Float64Array.from({ length: side * kept }, (_, i) => eigenvectorMatrix.get(Math.floor(i / kept), order[i % kept] ?? 0));
  if (isTall) return withSigns({ u: new Float64Array(), s, v: vectors }, 0, columns);
  const v = product(matrix, vectors, columns, rows, kept, true).map((value, i) => value / (s[i % kept] ?? 1));
  return withSigns({ u: vectors, s, v }, rows, columns);
}

function exact(matrix: HostMatrix, rows: number, columns: number, rank: number): Decomposition {
  if (rows < columns) {
    const { u, s, v } = exact(transposed(matrix, rows, columns), columns, rows, rank);
    return { u: v, s, v: u };
  }
  const whole = new SVD(Matrix.from1DArray(rows, columns, Array.from(matrix)));
  const cut = (vectors: Matrix, length: number): Float64Array =>
    Float64Array.from({ length: length * rank }, (_, i) => vectors.get(Math.floor(i / rank), i % rank));
  return {
    u: cut(whole.leftSingularVectors, rows),
    s: Float64Array.from(whole.diagonal.slice(0, rank)),
    v: cut(whole.rightSingularVectors, columns),
  };
}

function truncated(
  matrix: HostMatrix,
  rows: number,
  columns: number,
  rank: number,
  width: number,
  passes: number | undefined,
): Decomposition {
  const random = directions();
  const start = Float64Array.from({ length: columns * width }, () => random.next().value);
  let range = orthonormalized(product(matrix, start, rows, columns, width), rows, width);
  let found: Decomposition | null = null;
  // A spectrum without any decay would take for ever; after this many passes its directions are as good as any.
  const most = passes ?? 200;
  for (let pass = 0; ; pass++) {
    // Mᵀ Q [columns, width] = Y R; the singular values of M in the range are those of the small R.
    const image = product(matrix, range, columns, rows, width, true);
    const other = orthonormalized(image, columns, width);
    const small = product(other, image, width, columns, width, true);
    const inner = exact(small, width, width, rank);
    const isSettled = passes === undefined && found !== null && differs(found.s, inner.s) <= settled;
    found = inner;
    if (pass >= most || isSettled) {
      return { u: product(range, inner.v, rows, width, rank), s: inner.s, v: product(other, inner.u, columns, width, rank) };
    }
    range = orthonormalized(product(matrix, other, rows, columns, width), rows, width);
  }
}

/** The largest difference of two lists of singular values, over the largest of them. */
function differs(before: Float64Array, now: Float64Array): number {
  let worst = 0;
  for (const [i, value] of now.entries()) worst = Math.max(worst, Math.abs(value - (before[i] ?? 0)));
  return worst / Math.max(now[0] ?? 0, Number.MIN_VALUE);
}

/** Turns each triplet so that the largest entry of its right vector is positive. */
function withSigns({ u, s, v }: Decomposition, rows: number, columns: number): Decomposition {
  const rank = s.length;
  for (let k = 0; k < rank; k++) {
    let largest = 0;
    for (let row = 0; row < columns; row++) {
      const value = v[row * rank + k] ?? 0;
      if (Math.abs(value) > Math.abs(largest)) largest = value;
    }
    if (largest >= 0) continue;
    for (let row = 0; row < columns; row++) v[row * rank + k] = -(v[row * rank + k] ?? 0);
    for (let row = 0; row < rows; row++) u[row * rank + k] = -(u[row * rank + k] ?? 0);
  }
  return { u, s, v };
}
