import type { Tensor } from "@lowrank/tensor";
import { at, type Case, type Family, f32Bytes, input, rowwise } from "./family.js";

function softmaxCase(rows: number, columns: number): Case {
  return {
    name: `softmax, ${rows}x${columns}`,
    size: columns,
    curve: "softmax",
    // Largest, difference, exp, sum, quotient.
    flops: 5 * rows * columns,
    bytes: f32Bytes(rows * columns, rows * columns),
    inputs: [input(0, [rows, columns])],
    build: ([x]) => [(x as Tensor).softmax(-1)],
    reference: ([x], positions) => {
      const total = rowwise((row) => {
        let sum = 0;
        for (let i = 0; i < columns; i++) sum += Math.exp(at(x, row * columns + i));
        return sum;
      });
      return positions.map((position) => Math.exp(at(x, position)) / total(Math.floor(position / columns)));
    },
    tolerance: 2e-6 / Math.sqrt(columns),
    task: { task: "softmax", rows, columns, seed: 0 },
  };
}

/** Softmax of rows. */
export const softmax: Family = {
  name: "softmax",
  sizeLabel: "columns",
  cases: (isQuick) => (isQuick ? [softmaxCase(64, 128)] : [128, 512, 2048, 8192].map((columns) => softmaxCase(512, columns))),
};
