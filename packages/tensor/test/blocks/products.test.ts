import { type Device, device, realize, roundedActivations, type Tensor, tensor } from "@lowrank/tensor";
import { inShare, testBackend, testDevice } from "test-support";
import { beforeAll, expect, test } from "vitest";
import { blockWeights } from "./weights.js";

let tested: Device;
let reference: Device;
beforeAll(async () => {
  tested = await testDevice();
  reference = await device("reference");
});

const isCpu = testBackend() === "cpu";
const [rows, columns] = [64, 512];

const matrix = (height: number, width: number, dev: Device): Tensor =>
  tensor(
    Float32Array.from({ length: height * width }, (_, i) => Math.sin(i * 1.3)),
    { shape: [height, width], device: dev },
  );

/** What f32 sums, or activations of 16 bits a block, may add to or take from a product: of its factors' lengths. */
const tolerance = 2 ** -15;

const length = (values: Iterable<number>): number => Math.sqrt([...values].reduce((sum, value) => sum + value * value, 0));

// Slow: on a software adapter a program is compiled for each type and number of rows.
for (const [name, make] of inShare([...blockWeights], ([each]) => each))
  for (const m of isCpu ? [1, 2, 4, 7, 256] : [1, 7, 256])
    test(`${m} rows times a weight in ${name}, and back for their gradient = the float64 reference`, async () => {
      const results = [reference, tested].map(async (dev) => {
        const weight = make(rows, columns, dev);
        const forward = (): Tensor => matrix(m, columns, dev).matmul(weight.transpose());
        // Only the cpu rounds where it may.
        const products = [forward(), matrix(m, rows, dev).matmul(weight), ...(isCpu ? [roundedActivations(forward)] : [])];
        await realize(...products);
        return Promise.all([...products, ...(dev === reference ? [weight] : [])].map((each) => each.data() as Promise<Float32Array>));
      });
      const [wants = [], got = []] = await Promise.all(results);
      const [forward, back] = wants;
      const values = wants.at(-1) as Float32Array; // the weight comes last
      const longestRow = Math.max(...Array.from({ length: rows }, (_, row) => length(values.subarray(row * columns, (row + 1) * columns))));
      const longestColumn = Math.max(
        ...Array.from({ length: columns }, (_, column) =>
          length(Array.from({ length: rows }, (_, row) => values[row * columns + column] ?? 0)),
        ),
      );
      // The rows' numbers are at most 1, so that their lengths are at most the roots of their sizes.
      for (const [wanted, scale, i] of [
        [forward, longestRow * Math.sqrt(columns), 0],
        [back, longestColumn * Math.sqrt(rows), 1],
        ...(isCpu ? ([[forward, longestRow * Math.sqrt(columns), 2]] as const) : []),
      ] as const) {
        expect(got[i]?.length).toBe(wanted?.length);
        for (const [at, value] of (wanted ?? []).entries())
          if (!(Math.abs((got[i]?.[at] ?? Number.NaN) - value) <= scale * tolerance))
            throw new Error(`${["forward", "back", "forward, rounded"][i]}, ${at}: ${got[i]?.[at]} instead of ${value}`);
      }
    });

test.each([
  [1, "q8_0"],
  [2, "q4_0"],
  [3, "q5_1"],
] as const)(
  "%i rows a matrix, gathered, times some matrices in blocks of %s = the float64 reference: as a mixture's experts",
  async (m, type) => {
    const make = new Map([...blockWeights].map(([name, each]) => [name.toLowerCase(), each])).get(type) ?? expect.fail(type);
    const results = [reference, tested].map(async (dev) => {
      const weight = make(3 * rows, columns, dev).reshape([3, rows, columns]);
      const indices = (...list: number[]): Tensor => tensor(list, { dtype: "i32", device: dev });
      // So few rows that the left operand is computed where it is read, too.
      const left = matrix(2, columns, dev)
        .gather(indices(...Array.from({ length: 2 * m }, (_, i) => i % 2)), 0)
        .reshape([2, m, columns]);
      return (await left.matmul(weight.gather(indices(2, 0), 0).transpose()).data()) as Float32Array;
    });
    const [wanted = new Float32Array(), got = new Float32Array()] = await Promise.all(results);
    expect(got.length).toBe(wanted.length);
    const largest = Math.max(...wanted.map(Math.abs));
    expect(Math.max(...wanted.map((value, i) => Math.abs(value - (got[i] ?? Number.NaN))))).toBeLessThan(largest * 2 ** -10);
  },
);
