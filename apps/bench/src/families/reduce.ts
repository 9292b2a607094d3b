import type { Tensor } from "@lowrank/tensor";
import { at, type Case, dot, type Family, f32Bytes, input } from "./family.js";

function sumCase(rows: number, columns: number, axis: 0 | 1): Case {
  return {
    name: `sum of ${axis === 1 ? "rows" : "columns"}, ${rows}x${columns}`,
    size: rows * columns,
    curve: axis === 1 ? "rows" : "columns",
    flops: rows * columns,
    bytes: f32Bytes(rows * columns, axis === 1 ? rows : columns),
    inputs: [input(0, [rows, columns])],
    build: ([x]) => [(x as Tensor).sum(axis)],
    reference: ([x], positions) =>
      positions.map((position) =>
        dot(
          axis === 1 ? columns : rows,
          (i) => at(x, axis === 1 ? position * columns + i : i * columns + position),
          () => 1,
        ),
      ),
    tolerance: 1e-6 * Math.sqrt(axis === 1 ? columns : rows) + 1e-6,
    task: axis === 1 ? { task: "sum", rows, columns, seed: 0 } : null,
  };
}

/** Sums along rows, along columns, and of everything. */
export const reductions: Family = {
  name: "reduce",
  sizeLabel: "elements",
  cases: (isQuick) =>
    isQuick
      ? [sumCase(64, 256, 1), sumCase(64, 256, 0)]
      : [128, 512, 2048].flatMap((size) => [sumCase(size, size, 1), sumCase(size, size, 0)]).concat(sumCase(1, 2 ** 20, 1)),
};
