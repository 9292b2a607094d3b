import { addHostProduct } from "@lowrank/tensor";
import { afterEach, describe, expect, it, vi } from "vitest";
import { openBlockProduct, place } from "../src/backends/cpu/host-product.js";

/** Numbers that look random and are the same at each run. */
const numbers = (count: number): Float64Array => Float64Array.from({ length: count }, (_, i) => (Math.sin(i * 12.9898) * 43758.5453) % 1);

type Operand = Parameters<typeof addHostProduct>[2];

/** The product by its definition. */
function plain(left: Operand, right: Operand, rows: number, inner: number, columns: number): Float64Array {
  const result = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++)
      for (let k = 0; k < inner; k++)
        result[row * columns + column] =
          (result[row * columns + column] ?? 0) +
          (left.of[row * left.rowStride + k * left.columnStride] ?? 0) * (right.of[k * right.rowStride + column * right.columnStride] ?? 0);
  return result;
}

/** What rounding may take: as many additions of numbers below 1 as there are. */
const tolerance = (inner: number): number => 1e-15 * Math.max(1, inner);

const sizes = [
  { name: "one number", rows: 1, inner: 1, columns: 1 },
  { name: "sides that fill no tile, an odd depth", rows: 4, inner: 7, columns: 5 },
  { name: "whole tiles", rows: 6, inner: 8, columns: 9 },
  { name: "more rows than a block has", rows: 149, inner: 3, columns: 2 },
  { name: "more columns than a block has", rows: 2, inner: 3, columns: 290 },
  { name: "more depth than a block has", rows: 5, inner: 515, columns: 4 },
  { name: "nothing to add up", rows: 3, inner: 0, columns: 2 },
];

describe("the host's product", () => {
  afterEach(() => vi.unstubAllGlobals());

  it("adds a multiple of A B in float64, of operands however they lie", () => {
    for (const { name, rows, inner, columns } of sizes) {
      const [a, b] = [numbers(rows * inner), numbers(inner * columns + 1).subarray(1)];
      const lefts: Record<string, Operand> = {
        "row by row": { of: a, rowStride: inner, columnStride: 1 },
        "column by column": { of: a, rowStride: 1, columnStride: rows },
        "of f32": { of: Float32Array.from(a), rowStride: inner, columnStride: 1 },
      };
      const rights: Record<string, Operand> = {
        "row by row": { of: b, rowStride: columns, columnStride: 1 },
        "column by column": { of: b, rowStride: 1, columnStride: inner },
      };
      for (const [leftName, left] of Object.entries(lefts))
        for (const [rightName, right] of Object.entries(rights)) {
          // Rows of the sums lie further apart than they are long; what is between them stays.
          const stride = columns + 2;
          const sums = numbers(rows * stride);
          const want = sums.slice();
          const product = plain(left, right, rows, inner, columns);
          for (let i = 0; i < product.length; i++) {
            const at = Math.floor(i / columns) * stride + (i % columns);
            want[at] = (want[at] ?? 0) - 0.5 * (product[i] ?? 0);
          }
          addHostProduct(sums, stride, left, right, { rows, inner, columns, factor: -0.5 });
          const worst = sums.reduce((most, value, i) => Math.max(most, Math.abs(value - (want[i] ?? Number.NaN))), 0);
          expect(worst, `${name}: ${leftName} times ${rightName}`).toBeLessThanOrEqual(tolerance(inner));
        }
    }
  });

  it("multiplies blocks without WebAssembly where a page's policy forbids it", () => {
    const [rows, columns, depth] = [6, 9, 8];
    const packed = numbers(rows * depth);
    const results = [false, true].map((isForbidden) => {
      const { CompileError } = WebAssembly;
      class Forbidden {
        constructor() {
          throw new CompileError("forbidden by the page's policy");
        }
      }
      if (isForbidden) vi.stubGlobal("WebAssembly", { CompileError, Module: Forbidden });
      const { memory, multiply } = openBlockProduct();
      memory.set(packed, place.left);
      memory.set(numbers(columns * depth).reverse(), place.right);
      multiply(rows, columns, depth);
      multiply(rows, columns, depth);
      return memory.slice(place.result, place.result + rows * columns);
    });
    const [vectors = [], one = []] = results;
    expect(vectors.length).toBe(rows * columns);
    for (const [i, value] of one.entries()) expect(value).toBeCloseTo(vectors[i] ?? Number.NaN, 14);
  });

  it("has all of the lower triangle where no more is asked for, and as many bits of it", () => {
    const [rows, inner] = [301, 40];
    const a = numbers(rows * inner);
    const [left, right]: [Operand, Operand] = [
      { of: a, rowStride: inner, columnStride: 1 },
      { of: a, rowStride: 1, columnStride: inner },
    ];
    const [whole, lower] = [new Float64Array(rows * rows), new Float64Array(rows * rows)];
    addHostProduct(whole, rows, left, right, { rows, inner, columns: rows });
    addHostProduct(lower, rows, left, right, { rows, inner, columns: rows, isLower: true });
    for (let row = 0; row < rows; row++)
      expect(lower.subarray(row * rows, row * rows + row + 1)).toEqual(whole.subarray(row * rows, row * rows + row + 1));
    expect(lower[rows - 1]).toBe(0);
  });

  it("takes what is not finite as the definition does", () => {
    const sums = new Float64Array(4);
    const a = Float64Array.of(Number.POSITIVE_INFINITY, 1, Number.NaN, 1);
    addHostProduct(
      sums,
      2,
      { of: a, rowStride: 2, columnStride: 1 },
      { of: Float64Array.of(1, 2, 1, 1), rowStride: 2, columnStride: 1 },
      { rows: 2, inner: 2, columns: 2 },
    );
    expect([...sums]).toEqual([Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, Number.NaN, Number.NaN]);
  });
});
