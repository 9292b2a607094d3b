import { addHostProduct, type HostSymmetric } from "@lowrank/tensor";
import { gram, product, rowProducts } from "./product.js";
import { directions, norm, orthonormalizeRows, removeFrom, removeShares, scale } from "./qr.js";

/** A symmetric matrix with entries on three diagonals: [n] on the main one, and beside it, where entry i stands between rows i − 1 and i. */
export interface Tridiagonal {
  readonly diagonal: Float64Array;
  readonly beside: Float64Array;
}

/**
 * T = H A H with a product H of reflections I − v vᵀ (Householder 1958), of the lower triangle of a symmetric matrix [n, n]; v of row i takes
 * the place of the row's first i entries. A row is updated and multiplied by the next v in one pass over the memory.
 */
export function tridiagonalized({ matrix, v, w, x: next, image, update }: HostSymmetric, n: number): Tridiagonal {
  const diagonal = new Float64Array(n);
  const beside = new Float64Array(n);
  v.fill(0);
  w.fill(0);
  for (let row = n - 1; row >= 0; row--) {
    const start = row * n;
    // What the reflection before left to do: A − v wᵀ − w vᵀ, in this row first, because it says the next v.
    for (let i = 0; i <= row; i++) matrix[start + i] = (matrix[start + i] ?? 0) - (v[row] ?? 0) * (w[i] ?? 0) - (w[row] ?? 0) * (v[i] ?? 0);
    diagonal[row] = matrix[start + row] ?? 0;
    if (row === 0) break;
    beside[row] = reflector(matrix, start, row, next);
    update(row);
    let half = 0;
    for (let i = 0; i < row; i++) half += 0.5 * (image[i] ?? 0) * (next[i] ?? 0);
    for (let i = 0; i < row; i++) w[i] = (image[i] ?? 0) - half * (next[i] ?? 0);
    v.set(next);
  }
  return { diagonal, beside };
}

/** v with (I − v vᵀ) x = (0, …, 0, y) for the `count` entries x of a row, which it replaces; gives y. */
function reflector(matrix: Float64Array, start: number, count: number, v: Float64Array): number {
  const x = matrix.subarray(start, start + count);
  const last = x[count - 1] ?? 0;
  const before = norm(x.subarray(0, count - 1));
  v.fill(0);
  if (before === 0) {
    x.fill(0);
    return last;
  }
  const size = Math.hypot(before, last);
  const y = last > 0 ? -size : size;
  // ‖x − y e‖² / 2 = size² − y last, as a product of roots, so that it does not underflow.
  const root = Math.sqrt(size) * Math.sqrt(size + Math.abs(last));
  x[count - 1] = last - y;
  for (let i = 0; i < count; i++) {
    x[i] = (x[i] ?? 0) / root;
    v[i] = x[i] ?? 0;
  }
  return y;
}

/** Reflections that are done in one. */
const blockReflections = 32;

/**
 * Turns vectors of T, the rows of [count, n], into those of A: H of `tridiagonalized`, from the last reflection to the first. Some reflections
 * are one product: (I − v₁ v₁ᵀ) (I − v₂ v₂ᵀ) … = I − Vᵀ R V with the v as rows of V and an upper triangular R (Schreiber & Van Loan 1989).
 */
export function reflected(matrix: Float64Array, n: number, vectors: Float64Array, count: number): void {
  const largest = Math.min(blockReflections, n);
  const shared = new Float64Array(count * largest);
  const rows = new Float64Array(largest * n);
  for (let first = 1; first < n; first += blockReflections) {
    const size = Math.min(blockReflections, n - first);
    // The longest of them.
    const width = first + size - 1;
    const v = rows.subarray(0, size * width).fill(0);
    for (let k = 0; k < size; k++) v.set(matrix.subarray((first + k) * n, (first + k) * n + first + k), k * width);
    const own = { of: vectors, rows: count, stride: n };
    const shares = rowProducts(own, { of: v, rows: size, stride: width }, width, { result: shared });
    const turned = product(shares, triangleOf(v, size, width), count, size, size);
    const [left, right] = [
      { of: turned, rowStride: size, columnStride: 1 },
      { of: v, rowStride: width, columnStride: 1 },
    ];
    addHostProduct(vectors, n, left, right, { rows: count, inner: size, columns: width, factor: -1 });
  }
}

/** R [size, size] of reflections with the rows of V [size, width]. */
function triangleOf(v: Float64Array, size: number, width: number): Float64Array {
  const inner = gram(v, size, width);
  const r = new Float64Array(size * size);
  for (let k = 0; k < size; k++) {
    r[k * size + k] = 1;
    for (let i = 0; i < k; i++) {
      let sum = 0;
      for (let j = i; j < k; j++) sum += (r[i * size + j] ?? 0) * (inner[k * size + j] ?? 0);
      r[i * size + k] = -sum;
    }
  }
  return r;
}

/** All eigenvalues, falling: implicit QL with Wilkinson's shifts (Dubrulle, Martin & Wilkinson 1968), without vectors. */
export function eigenvalues({ diagonal, beside }: Tridiagonal): Float64Array {
  const n = diagonal.length;
  const d = diagonal.slice();
  const e = new Float64Array(n);
  e.set(beside.subarray(1));
  for (let low = 0; low < n; low++) {
    for (let pass = 0; ; pass++) {
      let high = low;
      while (high < n - 1 && Math.abs(e[high] ?? 0) > Number.EPSILON * (Math.abs(d[high] ?? 0) + Math.abs(d[high + 1] ?? 0))) high++;
      if (high === low) break;
      // 30 are usual at most for a value; numbers that are not finite never settle.
      if (pass === 200) throw new RangeError("The eigenvalues of a matrix did not settle. Are its numbers finite?");
      stepDown(d, e, low, high);
    }
  }
  return d.sort().reverse();
}

/** One implicit QL step on rows `low` to `high`, where `e[i]` stands between rows i and i + 1. */
function stepDown(d: Float64Array, e: Float64Array, low: number, high: number): void {
  const [first, between] = [d[low] ?? 0, e[low] ?? 0];
  const half = ((d[low + 1] ?? 0) - first) / (2 * between);
  let g = (d[high] ?? 0) - first + between / (half + (half >= 0 ? 1 : -1) * Math.hypot(half, 1));
  let [sine, cosine, moved] = [1, 1, 0];
  for (let i = high - 1; i >= low; i--) {
    const f = sine * (e[i] ?? 0);
    const b = cosine * (e[i] ?? 0);
    const size = Math.sqrt(f * f + g * g);
    e[i + 1] = size;
    if (size === 0) {
      d[i + 1] = (d[i + 1] ?? 0) - moved;
      e[high] = 0;
      return;
    }
    sine = f / size;
    cosine = g / size;
    g = (d[i + 1] ?? 0) - moved;
    const turned = ((d[i] ?? 0) - g) * sine + 2 * cosine * b;
    moved = sine * turned;
    d[i + 1] = g + moved;
    g = cosine * turned - b;
  }
  d[low] = (d[low] ?? 0) - moved;
  e[low] = g;
  e[high] = 0;
}

/** Eigenvalues whose distance is below this share of the largest count as a cluster: inverse iteration alone finds one vector for all of it. */
const clusterShare = 1e-8;

/**
 * The eigenvectors of the first `count` of falling eigenvalues, as orthonormal rows [count, n]: inverse iteration, orthogonal within clusters
 * from the start (Peters & Wilkinson 1971; LAPACK's dstein), and to all others at the end. They are written over the first numbers of `vectors`.
 */
export function eigenvectors(matrix: Tridiagonal, values: Float64Array, count: number, vectors: Float64Array): void {
  const n = values.length;
  const factors = emptyFactors(n);
  const random = directions();
  const scaleOf = Math.max(Math.abs(values[0] ?? 0), Math.abs(values[n - 1] ?? 0), Number.MIN_VALUE);
  let cluster = 0;
  let shifted = Number.POSITIVE_INFINITY;
  for (let k = 0; k < count; k++) {
    const value = values[k] ?? 0;
    if (k > 0 && (values[k - 1] ?? 0) - value > clusterShare * scaleOf) cluster = k;
    // Equal values are moved apart a little, so that their equations differ.
    shifted = Math.min(value, shifted - 10 * Number.EPSILON * scaleOf);
    factorize(matrix, shifted, Number.EPSILON * scaleOf, factors);
    const vector = vectors.subarray(k * n, (k + 1) * n);
    do {
      for (let i = 0; i < n; i++) vector[i] = random();
      for (let pass = 0; pass < 2; pass++) {
        removeShares(vectors, cluster, k, vector);
        solve(factors, vector);
        scale(vector, 1 / norm(vector));
      }
    } while (!removeFrom(vectors, k, vector, cluster));
  }
  orthonormalizeRows(vectors, count, n);
}

/** P L U of T − λ, tridiagonal, with rows exchanged for the larger pivot: U has three diagonals. [n] each. */
interface Factored {
  readonly pivot: Float64Array;
  readonly above: Float64Array;
  readonly second: Float64Array;
  readonly multiplier: Float64Array;
  readonly isExchanged: Uint8Array;
}

function emptyFactors(n: number): Factored {
  const numbers = (): Float64Array => new Float64Array(n);
  return { pivot: numbers(), above: numbers(), second: numbers(), multiplier: numbers(), isExchanged: new Uint8Array(n) };
}

function factorize({ diagonal, beside }: Tridiagonal, value: number, smallest: number, into: Factored): void {
  const n = diagonal.length;
  const { pivot, above, second, multiplier, isExchanged } = into;
  let [own, right] = [(diagonal[0] ?? 0) - value, beside[1] ?? 0];
  for (let row = 0; row < n - 1; row++) {
    const below = beside[row + 1] ?? 0;
    const [nextOwn, nextRight] = [(diagonal[row + 1] ?? 0) - value, row + 2 < n ? (beside[row + 2] ?? 0) : 0];
    if (Math.abs(below) > Math.abs(own)) {
      isExchanged[row] = 1;
      const factor = own / below;
      pivot[row] = below;
      above[row] = nextOwn;
      second[row] = nextRight;
      multiplier[row] = factor;
      [own, right] = [right - factor * nextOwn, -factor * nextRight];
    } else {
      if (Math.abs(own) < smallest) own = smallest;
      const factor = below / own;
      isExchanged[row] = 0;
      pivot[row] = own;
      above[row] = right;
      second[row] = 0;
      multiplier[row] = factor;
      [own, right] = [nextOwn - factor * right, nextRight];
    }
  }
  pivot[n - 1] = Math.abs(own) < smallest ? smallest : own;
}

function solve({ pivot, above, second: twoAbove, multiplier, isExchanged }: Factored, x: Float64Array): void {
  const n = x.length;
  for (let row = 0; row < n - 1; row++) {
    const first = x[row] ?? 0;
    const second = x[row + 1] ?? 0;
    const own = isExchanged[row] ? second : first;
    x[row] = own;
    x[row + 1] = (isExchanged[row] ? first : second) - (multiplier[row] ?? 0) * own;
  }
  // What stands in the two rows below.
  let [next, afterNext] = [0, 0];
  for (let row = n - 1; row >= 0; row--) {
    const value = ((x[row] ?? 0) - (above[row] ?? 0) * next - (twoAbove[row] ?? 0) * afterNext) / (pivot[row] ?? 1);
    x[row] = value;
    afterNext = next;
    next = value;
  }
}
