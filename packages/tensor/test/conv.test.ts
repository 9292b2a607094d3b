import { type Conv2dOptions, conv2d, type Device, device, realize, type Tensor, tensor } from "@lowrank/tensor";
import fc from "fast-check";
import { testBackend, testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";
import { type ConvCase, casesOn, convolution, numbers } from "./conv-cases.js";

let devices: Device[];

beforeAll(async () => {
  devices = [await device("reference"), await testDevice()];
});

function tensors({ x, weight, hasBias }: ConvCase, dev: Device): { x: Tensor; weight: Tensor; bias: Tensor | null } {
  const made = (shape: readonly number[], seed: number): Tensor => tensor(Float32Array.from(numbers(shape, seed)), { shape, device: dev });
  return { x: made(x, 1), weight: made(weight, 2), bias: hasBias ? made([weight[0]], 3) : null };
}

describe("conv2d is the sum that torch defines", () => {
  for (const [name, row] of casesOn(testBackend())) {
    test(name, async () => {
      const want = convolution(row);
      for (const dev of devices) {
        const { x, weight, bias } = tensors(row, dev);
        const got = conv2d(x, weight, bias, row.options);
        expect(got.shape).toEqual(want.shape);
        const values = await got.data();
        for (const [i, value] of want.values.entries()) {
          // The operands are f32; sums of some hundred terms around 1.
          if (!(Math.abs((values[i] ?? Number.NaN) - value) <= 1e-4 * (1 + Math.abs(value))))
            throw new Error(`element ${i}: ${values[i]} instead of ${value}`);
        }
      }
    });
  }
});

/** Sizes, window, stride, padding and dilation along one axis. */
const axis = fc.record({
  size: fc.integer({ min: 1, max: 17 }),
  kernel: fc.integer({ min: 1, max: 4 }),
  stride: fc.integer({ min: 1, max: 4 }),
  padding: fc.integer({ min: 0, max: 4 }),
  dilation: fc.integer({ min: 1, max: 3 }),
});
const random = fc.record({
  rows: axis,
  columns: axis,
  batch: fc.integer({ min: 1, max: 3 }),
  groups: fc.integer({ min: 1, max: 3 }),
  own: fc.integer({ min: 1, max: 3 }),
  outputs: fc.integer({ min: 1, max: 3 }),
});

test("any convolution is the sum that torch defines", async () => {
  await fc.assert(
    fc.asyncProperty(random, async ({ rows, columns, batch, groups, own, outputs }) => {
      const pair = (name: "stride" | "padding" | "dilation"): [number, number] => [rows[name], columns[name]];
      const row: ConvCase = {
        x: [batch, groups * own, rows.size, columns.size],
        weight: [groups * outputs, own, rows.kernel, columns.kernel],
        options: { groups, stride: pair("stride"), padding: pair("padding"), dilation: pair("dilation") },
      };
      const want = convolution(row);
      fc.pre((want.shape[2] ?? 0) > 0 && (want.shape[3] ?? 0) > 0);
      const { x, weight } = tensors(row, devices[1] as Device);
      const got = await conv2d(x, weight, null, row.options).data();
      for (const [i, value] of want.values.entries())
        if (!(Math.abs((got[i] ?? Number.NaN) - value) <= 1e-4 * (1 + Math.abs(value))))
          throw new Error(`element ${i}: ${got[i]} instead of ${value}`);
    }),
    { numRuns: testBackend() === "cpu" ? 60 : 4, seed: 5 },
  );
});

test("what does not fit is refused with shapes and a remedy", () => {
  const [dev] = devices as [Device];
  const of = (shape: readonly number[]): Tensor => tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)), { shape, device: dev });
  const attempt =
    (x: readonly number[], weight: readonly number[], options: Conv2dOptions = {}) =>
    () =>
      conv2d(of(x), of(weight), null, options);
  expect(attempt([1, 3, 8, 8], [4, 2, 3, 3])).toThrow(/1 groups do not divide 3 channels/);
  expect(attempt([1, 4, 8, 8], [3, 2, 3, 3], { groups: 2 })).toThrow(/3 outputs/);
  expect(attempt([1, 4, 8], [3, 4, 3, 3])).toThrow(/unsqueeze/);
  expect(attempt([1, 1, 2, 8], [1, 1, 3, 3])).toThrow(/does not fit into/);
  expect(attempt([1, 1, 8, 8], [1, 1, 3, 3], { stride: 0 })).toThrow(/stride 0/);
  expect(attempt([1, 1, 8, 8], [1, 1, 3, 3], { padding: [1, -1] })).toThrow(/padding/);
  expect(() => conv2d(of([1, 1, 8, 8]), of([2, 1, 3, 3]), of([3]))).toThrow(/bias/);
});

test("integers and half floats are widened", async () => {
  for (const dev of devices) {
    const x = tensor([1, 2, 3, 4, 5, 6, 7, 8, 9], { shape: [1, 1, 3, 3], dtype: "i32", device: dev });
    const weight = tensor([1, 0, 0, 2], { shape: [1, 1, 2, 2], dtype: "bf16", device: dev });
    await realize(x, weight);
    expect(Array.from(await conv2d(x, weight).data())).toEqual([11, 14, 20, 23]);
  }
});
