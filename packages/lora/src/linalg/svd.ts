import { hostSymmetric } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import { addProduct, gram, type HostMatrix, product, rowProducts, transposed } from "./product.js";
import { directions, norm, orthonormalized, orthonormalizeRows, scale } from "./qr.js";
import { eigenvalues, eigenvectors, reflected, type Tridiagonal, tridiagonalized } from "./tridiagonal.js";

/** M = U diag(S) Vᵀ, cut to its `s.length` = k largest singular values, which fall. */
export interface Decomposition {
  /** Left singular vectors as columns, [rows, k]. */
  readonly u: Float64Array;
  /** Singular values, [k]. */
  readonly s: Float64Array;
  /** Right singular vectors as columns, [columns, k]. */
  readonly v: Float64Array;
}

/**
 * The singular value decomposition of a matrix [rows, columns], or its `rank` largest triplets, in float64 on the host: values to 1e-13 of the
 * largest. With `passes`, the leading subspace is found from random directions by as many passes of subspace iteration (Halko, Martinsson
 * & Tropp 2011, algorithm 4.4), which is quicker and less exact. The sign of each triplet is such that the largest entry of its right
 * vector is positive. Throws AdapterError where numbers are not finite. torch.linalg.svd, torch.svd_lowrank.
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
  const isExact = passes === undefined || width >= side;
  return withSigns(
    isExact ? exact(matrix, rows, columns, () => kept) : iterated(matrix, rows, columns, kept, width, passes),
    rows,
    columns,
  );
}

/** The same with the fewest triplets that hold a share of the energy ‖M‖², above 0 and up to 1. */
export function svdOfEnergy(matrix: HostMatrix, rows: number, columns: number, share: number): Decomposition {
  const side = Math.min(rows, columns);
  const enough = (squares: Float64Array): number => {
    const energy = squares.reduce((sum, square) => sum + Math.max(square, 0), 0);
    return leadingCount(squares, share * energy) ?? side;
  };
  return withSigns(exact(matrix, rows, columns, enough), rows, columns);
}

/** The smallest number of leading squares that make up a sum, at least 1; null where even all of them do not. */
export function leadingCount(squares: Float64Array, sum: number): number | null {
  // What rounding takes away from the last ones is no part of it.
  const enough = sum * (1 - 1e-12);
  let held = 0;
  for (const [k, square] of squares.entries()) {
    held += Math.max(square, 0);
    if (held >= enough) return k + 1;
  }
  return null;
}

/** Singular values below this share of the largest are found in what is left without the larger ones: a Gram matrix squares them. */
const resolved = 1e-3;

/** What is left of a matrix once it is below this share of it is rounding. */
const rounding = 1e-15;

/**
 * The triplets out of the eigenvectors of W Wᵀ, where W [n, m] is M or Mᵀ, whichever is wider: those whose values a Gram matrix tells from
 * rounding first, then those of W − P S Qᵀ, until there are as many as `rankOf` says of the squares of all values.
 */
function exact(matrix: HostMatrix, rows: number, columns: number, rankOf: (squares: Float64Array) => number): Decomposition {
  const { isTall, n, m, wide: rest } = widened(matrix, rows, columns);
  const size = finiteNorm(rest);
  if (size > 0) scale(rest, 1 / size);
  let eigen = eigenSystem(rest, n, m);
  const rank = rankOf(eigen.values);
  const [p, q, s] = [new Float64Array(rank * n), new Float64Array(rank * m), new Float64Array(rank)];
  let left = size;
  let found = 0;
  while (found < rank && left > rounding * size) {
    const count = leadingVectors(eigen, p.subarray(found * n), rank - found);
    const until = found + count;
    // Eigenvectors are orthonormal already, but not to those of stages before.
    if (found > 0) orthonormalizeRows(p, until, n, found);
    const own = p.subarray(found * n, until * n);
    // Those of the last stage stay where they are computed; of the others, what they explain is still to be taken away.
    const [ofStage, isLast] = [q.subarray(found * m, until * m), until === rank];
    const images = isLast ? ofStage : new Float64Array(count * m);
    if (isTall && found === 0) imagesOf(images, own, matrix, count, n, m, 1 / size);
    else addProduct(images, own, rest, count, n, m);
    for (let k = 0; k < count; k++) s[found + k] = left * norm(images.subarray(k * m, (k + 1) * m));
    if (!isLast) ofStage.set(images);
    orthonormalizeRows(q, until, m, orthogonalCount(q, s, m, found));
    found = until;
    if (isLast) break;
    const explained = product(own, images, n, count, m, true);
    for (let i = 0; i < rest.length; i++) rest[i] = ((rest[i] ?? 0) - (explained[i] ?? 0)) * left;
    left = norm(rest);
    if (!(left > rounding * size)) break;
    scale(rest, 1 / left);
    eigen = eigenSystem(rest, n, m);
  }
  // Nothing is left to say the others, whose values are 0: any directions that are orthogonal.
  orthonormalizeRows(p, rank, n, found);
  orthonormalizeRows(q, rank, m, found);
  return falling({ u: isTall ? q : p, s, v: isTall ? p : q }, rows, columns);
}

/** M or Mᵀ, whichever is wider, [n, m], in float64 and of its own. */
function widened(
  matrix: HostMatrix,
  rows: number,
  columns: number,
): { readonly isTall: boolean; readonly n: number; readonly m: number; readonly wide: Float64Array } {
  const isTall = rows > columns;
  const [n, m] = isTall ? [columns, rows] : [rows, columns];
  return { isTall, n, m, wide: isTall ? transposed(matrix, rows, columns) : new Float64Array(matrix) };
}

/** The Frobenius norm, by which a matrix is divided before its numbers are squared: squares of what is far from 1 leave their range. */
function finiteNorm(matrix: Float64Array): number {
  const size = norm(matrix);
  if (!Number.isFinite(size))
    throw new AdapterError("A matrix to decompose holds numbers that are not finite. Look for NaN in the weights that it is made of.");
  return size;
}

/** Images whose lengths are this share of the longest one's are as orthogonal as rounding allows: it grows with the square of the ratio. */
const orthogonalShare = 0.25;

/** Gives the rows of Q from which on images are to be made orthogonal; those of the first stage that are so already get the length 1. */
function orthogonalCount(q: Float64Array, s: Float64Array, m: number, found: number): number {
  if (found > 0) return found;
  const least = orthogonalShare * (s[0] ?? 0);
  let count = 0;
  for (; count < s.length && least > 0 && (s[count] ?? 0) >= least; count++) {
    const row = q.subarray(count * m, (count + 1) * m);
    scale(row, 1 / norm(row));
  }
  return count;
}

/** P W of rows P [count, n], where W is the transposed of a matrix [m, n] times a factor; into `images`. */
function imagesOf(images: Float64Array, p: Float64Array, matrix: HostMatrix, count: number, n: number, m: number, factor: number): void {
  rowProducts({ of: p, rows: count, stride: n }, { of: matrix, rows: m, stride: n }, n, { result: images });
  scale(images, factor);
}

/** What says the eigenvectors of W Wᵀ, until the next is made: H of T = H W Wᵀ H in place of the matrix, T, and all eigenvalues, which fall. */
interface EigenSystem {
  readonly n: number;
  readonly reflections: Float64Array;
  readonly narrow: Tridiagonal;
  readonly values: Float64Array;
}

function eigenSystem(matrix: Float64Array, n: number, m: number): EigenSystem {
  const symmetric = hostSymmetric(n);
  const reflections = gram(matrix, n, m, symmetric.matrix);
  const narrow = tridiagonalized(symmetric, n);
  return { n, reflections, narrow, values: eigenvalues(narrow) };
}

/** The eigenvectors for values above `resolved`² of the first, at most `limit`, as rows of `vectors`; their count. */
function leadingVectors({ n, reflections, narrow, values }: EigenSystem, vectors: Float64Array, limit: number): number {
  let count = 1;
  while (count < limit && (values[count] ?? 0) > resolved ** 2 * (values[0] ?? 0)) count++;
  eigenvectors(narrow, values, count, vectors);
  reflected(reflections, n, vectors, count);
  return count;
}

/** Triplets given as rows, as columns by falling values: those of a later stage may pass an earlier one's last by a rounding. */
function falling({ u, s, v }: Decomposition, rows: number, columns: number): Decomposition {
  const order = [...s.keys()].sort((a, b) => (s[b] ?? 0) - (s[a] ?? 0));
  const isInOrder = order.every((from, to) => from === to);
  const arranged = (vectors: Float64Array, length: number): Float64Array => {
    if (isInOrder) return transposed(vectors, s.length, length);
    const result = new Float64Array(vectors.length);
    for (const [to, from] of order.entries()) result.set(vectors.subarray(from * length, (from + 1) * length), to * length);
    return transposed(result, s.length, length);
  };
  return { u: arranged(u, rows), s: Float64Array.from(order, (k) => s[k] ?? 0), v: arranged(v, columns) };
}

function iterated(matrix: HostMatrix, rows: number, columns: number, rank: number, width: number, passes: number): Decomposition {
  const random = directions();
  const start = Float64Array.from({ length: columns * width }, random);
  let range = orthonormalized(product(matrix, start, rows, columns, width), rows, width);
  for (let pass = 0; ; pass++) {
    // Mᵀ Q [columns, width] = Y R; the singular values of M in the range are those of the small R.
    const image = product(matrix, range, columns, rows, width, true);
    const other = orthonormalized(image, columns, width);
    if (pass >= passes) {
      const inner = exact(product(other, image, width, columns, width, true), width, width, () => rank);
      return { u: product(range, inner.v, rows, width, rank), s: inner.s, v: product(other, inner.u, columns, width, rank) };
    }
    range = orthonormalized(product(matrix, other, rows, columns, width), rows, width);
  }
}

/** The SVD of B A with B [rows, rank] and A [rank, columns]: that of R Tᵀ, [rank, rank], between Q and P of B = Q R and Aᵀ = P T. */
export function productSvd(b: HostMatrix, a: HostMatrix, rows: number, rank: number, columns: number): Decomposition {
  // A rank above a side leaves nothing thin: the product itself is the smaller matrix.
  if (rank > Math.min(rows, columns)) return svd(product(b, a, rows, rank, columns), rows, columns);
  const tall = transposed(a, rank, columns);
  const q = orthonormalized(b, rows, rank);
  const p = orthonormalized(tall, columns, rank);
  const r = product(q, b, rank, rows, rank, true);
  const t = product(p, tall, rank, columns, rank, true);
  const { u, s, v } = exact(product(r, transposed(t, rank, rank), rank, rank, rank), rank, rank, () => rank);
  return withSigns({ u: product(q, u, rows, rank, rank), s, v: product(p, v, columns, rank, rank) }, rows, columns);
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
