import { grad } from "@lowrank/autograd";
import { layerNorm, rmsNorm, type Tensor } from "@lowrank/tensor";
import { at, type Case, type Family, f32Bytes, input, rowwise } from "./family.js";

const eps = 1e-5;

/** Mean and 1/√(variance + eps) of a row. */
function moments(x: ArrayLike<number> | undefined, row: number, columns: number): { readonly mean: number; readonly inverse: number } {
  let mean = 0;
  for (let i = 0; i < columns; i++) mean += at(x, row * columns + i) / columns;
  let variance = 0;
  for (let i = 0; i < columns; i++) variance += (at(x, row * columns + i) - mean) ** 2 / columns;
  return { mean, inverse: 1 / Math.sqrt(variance + eps) };
}

function layerNormCase(rows: number, columns: number): Case {
  return {
    name: `layerNorm, ${rows}x${columns}`,
    size: columns,
    curve: "layerNorm",
    flops: 8 * rows * columns,
    bytes: f32Bytes(rows * columns, rows * columns, 2 * columns),
    inputs: [input(0, [rows, columns]), ones(columns), zeros(columns)],
    build: ([x, weight, bias]) => [layerNorm(x as Tensor, weight as Tensor, bias as Tensor, eps)],
    reference: ([x], positions) => {
      const of = rowwise((row) => moments(x, row, columns));
      return positions.map((position) => {
        const { mean, inverse } = of(Math.floor(position / columns));
        return (at(x, position) - mean) * inverse;
      });
    },
    tolerance: 1e-5,
    task: { task: "layernorm", rows, columns, seed: 0 },
  };
}

function rmsNormCase(rows: number, columns: number): Case {
  return {
    name: `rmsNorm, ${rows}x${columns}`,
    size: columns,
    curve: "rmsNorm",
    flops: 4 * rows * columns,
    bytes: f32Bytes(rows * columns, rows * columns, columns),
    inputs: [input(0, [rows, columns]), ones(columns)],
    build: ([x, weight]) => [rmsNorm(x as Tensor, weight as Tensor, eps)],
    reference: ([x], positions) => {
      const of = rowwise((row) => {
        let sum = 0;
        for (let i = 0; i < columns; i++) sum += at(x, row * columns + i) ** 2 / columns;
        return 1 / Math.sqrt(sum + eps);
      });
      return positions.map((position) => at(x, position) * of(Math.floor(position / columns)));
    },
    tolerance: 1e-5,
    task: null,
  };
}

/** dx of layerNorm for a gradient dy: inverse · (dy − mean(dy) − x̂ · mean(dy x̂)). */
function backwardCase(rows: number, columns: number): Case {
  return {
    name: `layerNorm backward, ${rows}x${columns}`,
    size: columns,
    curve: "layerNorm backward",
    flops: 16 * rows * columns,
    bytes: f32Bytes(rows * columns, rows * columns, rows * columns, columns),
    inputs: [input(0, [rows, columns]), ones(columns), input(1, [rows, columns])],
    build: ([x, weight, dy]) =>
      grad(
        layerNorm(x as Tensor, weight as Tensor, null, eps)
          .mul(dy as Tensor)
          .sum(),
        [x as Tensor],
      ),
    reference: ([x, , dy], positions) => {
      const of = rowwise((row) => {
        const { mean, inverse } = moments(x, row, columns);
        let [first, second] = [0, 0];
        for (let i = 0; i < columns; i++) {
          const gradient = at(dy, row * columns + i);
          first += gradient / columns;
          second += (gradient * (at(x, row * columns + i) - mean) * inverse) / columns;
        }
        return { mean, inverse, first, second };
      });
      return positions.map((position) => {
        const { mean, inverse, first, second } = of(Math.floor(position / columns));
        return inverse * (at(dy, position) - first - (at(x, position) - mean) * inverse * second);
      });
    },
    tolerance: 2e-5,
    task: null,
  };
}

const ones = (count: number) => ({ shape: [count], values: new Float32Array(count).fill(1), dtype: "f32" as const });
const zeros = (count: number) => ({ shape: [count], values: new Float32Array(count), dtype: "f32" as const });

/** Norms of rows, and the gradient of one. */
export const norm: Family = {
  name: "norm",
  sizeLabel: "columns",
  cases: (isQuick) =>
    (isQuick ? [128] : [128, 384, 768, 2048]).flatMap((columns) => {
      const rows = isQuick ? 64 : 1024;
      return [layerNormCase(rows, columns), rmsNormCase(rows, columns), backwardCase(rows, columns)];
    }),
};
