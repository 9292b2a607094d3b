import { expect, test } from "vitest";
import { orthonormalized, product, transposed } from "../src/linalg/qr.js";
import { leadingDirections, svd } from "../src/linalg/svd.js";

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
  expect(worst(found.s, s.slice(0, 8))).toBeLessThan(1e-10);
  // Of the vectors only the plane of each triplet is determined.
  const cut = (vectors: Float64Array, length: number): Float64Array =>
    Float64Array.from({ length: length * 8 }, (_, i) => vectors[Math.floor(i / 8) * rank + (i % 8)] ?? 0);
  const best = composed({ u: cut(u, rows), s: s.slice(0, 8), v: cut(v, columns) }, rows, columns);
  // Values are settled to 1e-12, vectors to about its square root.
  expect(worst(composed(found, rows, columns), best)).toBeLessThan(1e-6);
  expect(worst(composed(svd(matrix, rows, columns, 8, 16), rows, columns), best)).toBeLessThan(1e-4);
});

test.each([
  [12, 7, 3],
  [7, 12, 3],
  [40, 150, 5],
  [210, 30, 5],
])("the leading directions of a matrix [%i, %i] are those of its decomposition", (rows, columns, rank) => {
  // Values that fall, so that directions are determined.
  const matrix = numbers(rows * columns).map((value, i) => value * 0.5 ** (i % columns));
  const [found, wanted] = [leadingDirections(matrix, rows, columns, rank), svd(matrix, rows, columns, rank)];
  expect(worst(found.s, wanted.s)).toBeLessThan(1e-9 * (wanted.s[0] ?? 0));
  expect(worst(found.v, wanted.v)).toBeLessThan(1e-7);
});

test("the leading directions of a matrix of low rank are orthonormal all the same", () => {
  for (const [rows, columns] of [
    [4, 9],
    [9, 4],
  ] as const) {
    for (const matrix of [new Float64Array(36), new Float64Array(36).fill(1)]) {
      const { s, v } = leadingDirections(matrix, rows, columns, 3);
      expect(s[1]).toBeLessThan(1e-9);
      expect(worst(product(v, v, 3, columns, 3, true), identity(3))).toBeLessThan(1e-9);
    }
  }
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
