import { grad } from "@lowrank/autograd";
import { conv2d, type Device, device, realize, type Tensor, tensor } from "@lowrank/tensor";
import { testBackend, testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";
import { type ConvCase, casesOn, convolution, numbers } from "../../tensor/test/conv-cases.js";

let devices: Device[];

beforeAll(async () => {
  devices = [await device("reference"), await testDevice()];
});

/** The gradients of L = Σ dy · (conv2d(x, weight) + bias) in float64: each product of the sum that torch defines adds to two of them. */
function gradients(row: ConvCase): { x: number[]; weight: number[]; bias: number[] } {
  const { x, weight, options = {} } = row;
  const pair = (value: NonNullable<typeof options.stride> | undefined, usual: number): readonly [number, number] =>
    value === undefined ? [usual, usual] : typeof value === "number" ? [value, value] : value;
  const [stride, padding, dilation] = [pair(options.stride, 1), pair(options.padding, 0), pair(options.dilation, 1)];
  const [batch, channels, height, width] = x;
  const [outputs, own, kernelRows, kernelColumns] = weight;
  const { shape } = convolution(row);
  const [, , rows = 1, columns = 1] = shape;
  const [xs, ws, dys] = [numbers(x, 1), numbers(weight, 2), numbers(shape, 9)];
  const result = { x: xs.map(() => 0), weight: ws.map(() => 0), bias: Array.from({ length: outputs }, () => 0) };
  const add = (to: number[], at: number, value: number): void => void (to[at] = (to[at] ?? 0) + value);
  for (let b = 0; b < batch; b++) {
    for (let o = 0; o < outputs; o++) {
      const first = Math.floor(o / (outputs / (options.groups ?? 1))) * own;
      for (let i = 0; i < rows; i++) {
        for (let j = 0; j < columns; j++) {
          const dy = dys[((b * outputs + o) * rows + i) * columns + j] ?? Number.NaN;
          add(result.bias, o, dy);
          for (let c = 0; c < own; c++) {
            for (let k = 0; k < kernelRows; k++) {
              for (let l = 0; l < kernelColumns; l++) {
                const [h, w] = [i * stride[0] + k * dilation[0] - padding[0], j * stride[1] + l * dilation[1] - padding[1]];
                if (h < 0 || w < 0 || h >= height || w >= width) continue;
                const [atX, atWeight] = [
                  ((b * channels + first + c) * height + h) * width + w,
                  ((o * own + c) * kernelRows + k) * kernelColumns + l,
                ];
                add(result.x, atX, dy * (ws[atWeight] ?? Number.NaN));
                add(result.weight, atWeight, dy * (xs[atX] ?? Number.NaN));
              }
            }
          }
        }
      }
    }
  }
  return result;
}

describe("the gradients of conv2d are the sums that torch defines", () => {
  for (const [name, row] of casesOn(testBackend())) {
    test(name, async () => {
      const want = gradients(row);
      const { shape } = convolution(row);
      for (const dev of devices) {
        const made = (of: readonly number[], seed: number): Tensor =>
          tensor(Float32Array.from(numbers(of, seed)), { shape: of, device: dev });
        const [x, weight, bias] = [made(row.x, 1), made(row.weight, 2), made([row.weight[0]], 3)];
        const loss = conv2d(x, weight, bias, row.options).mul(made(shape, 9)).sum();
        const results = grad(loss, [x, weight, bias]);
        await realize(...results);
        for (const [i, list] of [want.x, want.weight, want.bias].entries()) {
          const got = (await results[i]?.data()) ?? [];
          expect(got.length).toBe(list.length);
          for (const [j, value] of list.entries()) {
            // Sums of some hundred terms around 1.
            if (!(Math.abs((got[j] ?? Number.NaN) - value) <= 2e-4 * (1 + Math.abs(value))))
              throw new Error(`gradient ${i}, element ${j}: ${got[j]} instead of ${value}`);
          }
        }
      }
    });
  }
});
