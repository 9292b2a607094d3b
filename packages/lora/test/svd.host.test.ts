import { expect, test } from "vitest";
import { product, transposed } from "../src/linalg/product.js";
import { orthonormalized } from "../src/linalg/qr.js";
import { productSvd, svd, svdOfEnergy } from "../src/linalg/svd.js";

/** Numbers that look random and are the same at each run. */
function numbers(count: number): Float64Array {
  return Float64Array.from({ length: count }, (_, i) => (Math.sin(i * 12.9898) * 43758.5453) % 1);
}

function worst(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Array.from(a, (value, i) => Math.abs(value - (b[i] ?? Number.NaN))).reduce((x, y) => Math.max(x, y), 0);
}

/** U diag(S) Vᵀ */
function composed({ u, s, v }: ReturnType<typeof svd>, rows: number, columns: number): Float64Array {
  const scaled = u.map((value, i) => value * (s[i % s.length] ?? 0));
  return product(scaled, transposed(v, columns, s.length), rows, s.length, columns);
}

const identity = (n: number): Float64Array => Float64Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 1 : 0));

test.each([
  [5, 5],
  [12, 7],
  [7, 12],
  [1, 9],
])("a matrix [%i, %i] is its singular vectors and values, which fall and whose vectors are orthonormal", (rows, columns) => {
  const matrix = numbers(rows * columns);
  const found = svd(matrix, rows, columns);
  const k = Math.min(rows, columns);
  expect(worst(composed(found, rows, columns), matrix)).toBeLessThan(1e-13);
  expect(worst(product(found.u, found.u, k, rows, k, true), identity(k))).toBeLessThan(1e-13);
  expect(worst(product(found.v, found.v, k, columns, k, true), identity(k))).toBeLessThan(1e-13);
  expect([...found.s]).toEqual([...found.s].sort((a, b) => b - a));
});

test("the truncated decomposition of a large matrix has the values that it was made of", () => {
  const [rows, columns, rank] = [520, 600, 60];
  const u = orthonormalized(numbers(rows * rank), rows, rank);
  const v = orthonormalized(numbers(columns * rank).reverse(), columns, rank);
  const s = Float64Array.from({ length: rank }, (_, k) => 0.9 ** k);
  const matrix = composed({ u, s, v }, rows, columns);
  const found = svd(matrix, rows, columns, 8);
  expect(worst(found.s, s.slice(0, 8))).toBeLessThan(1e-13);
  // Of the vectors only the plane of each triplet is determined.
  const cut = (vectors: Float64Array, length: number): Float64Array =>
    Float64Array.from({ length: length * 8 }, (_, i) => vectors[Math.floor(i / 8) * rank + (i % 8)] ?? 0);
  const best = composed({ u: cut(u, rows), s: s.slice(0, 8), v: cut(v, columns) }, rows, columns);
  expect(worst(composed(found, rows, columns), best)).toBeLessThan(1e-12);
  expect(worst(composed(svd(matrix, rows, columns, 8, 16), rows, columns), best)).toBeLessThan(1e-4);
});

const diagonal = (values: readonly number[], n: number): Float64Array =>
  Float64Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? (values[i / (n + 1)] ?? 0) : 0));

/** Matrices [24, 24] that decompositions fail on. */
const hard: Readonly<Record<string, Float64Array>> = {
  zeros: new Float64Array(576),
  "the identity": identity(24),
  "ones alone": new Float64Array(576).fill(1),
  "two values, each twelve times": diagonal(
    Array.from({ length: 24 }, (_, i) => 1 + (i % 2)),
    24,
  ),
  "values that halve, down to a rounding of the first": composed(
    {
      u: orthonormalized(numbers(576), 24, 24),
      s: Float64Array.from({ length: 24 }, (_, i) => 0.2 ** i),
      v: orthonormalized(numbers(576).reverse(), 24, 24),
    },
    24,
    24,
  ),
  "values that differ in the last digits": composed(
    {
      u: orthonormalized(numbers(576), 24, 24),
      s: Float64Array.from({ length: 24 }, (_, i) => 1 + i * 1e-14),
      v: orthonormalized(numbers(576).reverse(), 24, 24),
    },
    24,
    24,
  ),
  "blocks that do not meet": Float64Array.from({ length: 576 }, (_, i) =>
    Math.floor(i / 24 / 8) === Math.floor((i % 24) / 8) ? 1 + (i % 7) : 0,
  ),
  "values of 1e-160": numbers(576).map((value) => value * 1e-160),
  "values of 1e160": numbers(576).map((value) => value * 1e160),
  "one column": Float64Array.from({ length: 576 }, (_, i) => (i % 24 === 5 ? 1 + i : 0)),
};

test.each(Object.keys(hard))("the decomposition of a matrix [24, 24] holds for %s, and of its first 8 columns", (name) => {
  const square = hard[name] ?? expect.fail(name);
  for (const columns of [24, 8]) {
    const matrix = Float64Array.from({ length: 24 * columns }, (_, i) => square[Math.floor(i / columns) * 24 + (i % columns)] ?? 0);
    const found = svd(matrix, 24, columns);
    const size = Math.max(found.s[0] ?? 0, Number.MIN_VALUE);
    // 24 roundings of the largest value.
    expect(worst(composed(found, 24, columns), matrix) / size).toBeLessThan(24 * Number.EPSILON * 4);
    expect(worst(product(found.u, found.u, columns, 24, columns, true), identity(columns))).toBeLessThan(1e-14);
    expect(worst(product(found.v, found.v, columns, columns, columns, true), identity(columns))).toBeLessThan(1e-14);
    expect([...found.s]).toEqual([...found.s].sort((a, b) => b - a));
    for (const share of [0.5, 0.9, 1]) {
      const held = svdOfEnergy(matrix, 24, columns, share).s;
      expect(worst(held, found.s.slice(0, held.length)) / size).toBeLessThan(1e-14);
      const squares = (values: Float64Array): number => values.reduce((sum, value) => sum + (value / size) ** 2, 0);
      // No more than rounding of the whole decides.
      expect(squares(held)).toBeGreaterThanOrEqual(share * squares(found.s) - 1e-11);
      expect(squares(held.slice(0, -1))).toBeLessThan(Math.max(share * squares(found.s), Number.MIN_VALUE) + 1e-11);
    }
    const whole = found.s.slice(0, 3);
    expect(worst(svd(matrix, 24, columns, 3).s, whole) / size).toBeLessThan(1e-14);
  }
});

test("a matrix with a number that is not finite is refused", () => {
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY])
    expect(() => svd(numbers(12).fill(value, 5, 6), 3, 4)).toThrow(/numbers that are not finite\. Look for NaN/);
});

test.each([
  [9, 3, 7],
  [3, 5, 4],
  [1, 1, 6],
])("the decomposition of a product [%i, %i] by [.., %i] is that of its factors", (rows, rank, columns) => {
  const b = numbers(rows * rank);
  const a = numbers(rank * columns).reverse();
  const found = productSvd(b, a, rows, rank, columns);
  expect(worst(composed(found, rows, columns), product(b, a, rows, rank, columns))).toBeLessThan(1e-14);
  expect(worst(found.s, svd(product(b, a, rows, rank, columns), rows, columns).s.slice(0, found.s.length))).toBeLessThan(1e-14);
});

test("a product of thin factors is never there: one of 60,000 by 60,000 has its values at once", () => {
  const [length, rank] = [60_000, 4];
  const u = orthonormalized(numbers(length * rank), length, rank);
  const s = Float64Array.of(4, 3, 2, 1);
  const found = productSvd(
    u.map((value, i) => value * (s[i % rank] ?? 0)),
    transposed(u, length, rank),
    length,
    rank,
    length,
  );
  expect(worst(found.s, s)).toBeLessThan(1e-13);
});

test.each([
  [5, 3, 7],
  [2, 1, 1],
  [3, 6, 515],
])("products of [%i, %i] and [.., %i], and of the transposed left one, are sums of products", (rows, inner, columns) => {
  const [left, right] = [numbers(rows * inner), Float32Array.from(numbers(inner * columns))];
  const wanted = Float64Array.from({ length: rows * columns }, (_, i) => {
    let sum = 0;
    for (let at = 0; at < inner; at++)
      sum += (left[Math.floor(i / columns) * inner + at] ?? 0) * (right[at * columns + (i % columns)] ?? 0);
    return sum;
  });
  expect(worst(product(left, right, rows, inner, columns), wanted)).toBeLessThan(1e-14);
  expect(worst(product(transposed(left, rows, inner), right, rows, inner, columns, true), wanted)).toBeLessThan(1e-14);
});

test("a matrix of zeros, and one of rank 1, have as many orthonormal vectors as others", () => {
  const zeros = svd(new Float32Array(12), 3, 4);
  expect([...zeros.s]).toEqual([0, 0, 0]);
  const one = orthonormalized(
    Float64Array.from({ length: 12 }, () => 1),
    4,
    3,
  );
  expect(worst(product(one, one, 3, 4, 3, true), identity(3))).toBeLessThan(1e-13);
});
