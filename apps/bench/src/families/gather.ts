import { grad } from "@lowrank/autograd";
import type { Tensor } from "@lowrank/tensor";
import { at, type Case, type Family, f32Bytes, ids, input } from "./family.js";

function gatherCase(rows: number, width: number, count: number): Case {
  return {
    name: `gather, ${count} of ${rows} x ${width}`,
    size: count * width,
    curve: "gather",
    flops: 0,
    bytes: f32Bytes(count, count * width, count * width),
    inputs: [input(0, [rows, width]), ids(count, rows)],
    build: ([table, indices]) => [(table as Tensor).gather(indices as Tensor)],
    reference: ([table, indices], positions) =>
      positions.map((position) => at(table, at(indices, Math.floor(position / width)) * width + (position % width))),
    tolerance: 0,
    task: { task: "gather", rows, width, count, seed: 0 },
  };
}

/** The gradient of a gather: rows added up where they came from. */
function scatterCase(rows: number, width: number, count: number): Case {
  return {
    name: `scatterAdd, ${count} to ${rows} x ${width}`,
    size: count * width,
    curve: "scatterAdd",
    flops: count * width,
    bytes: f32Bytes(count, count * width, rows * width),
    inputs: [input(0, [rows, width]), ids(count, rows), input(1, [count, width])],
    build: ([table, indices, updates]) =>
      grad(
        (table as Tensor)
          .gather(indices as Tensor)
          .mul(updates as Tensor)
          .sum(),
        [table as Tensor],
      ),
    reference: ([, indices, updates], positions) =>
      positions.map((position) => {
        const [row, column] = [Math.floor(position / width), position % width];
        let sum = 0;
        for (let n = 0; n < count; n++) if (at(indices, n) === row) sum += at(updates, n * width + column);
        return sum;
      }),
    tolerance: 1e-5,
    task: null,
  };
}

/** Rows of a table taken, and added back. */
export const gather: Family = {
  name: "gather",
  sizeLabel: "elements",
  cases: (isQuick) =>
    isQuick
      ? [gatherCase(64, 32, 128), scatterCase(64, 32, 128)]
      : [256, 1024, 4096].flatMap((count) => [gatherCase(8192, 384, count), scatterCase(8192, 384, count)]),
};
