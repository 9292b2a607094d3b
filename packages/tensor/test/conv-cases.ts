import type { Conv2dOptions } from "@lowrank/tensor";

/** One convolution to test. */
export interface ConvCase {
  readonly x: readonly [number, number, number, number];
  readonly weight: readonly [number, number, number, number];
  readonly hasBias?: boolean;
  readonly options?: Conv2dOptions;
}

/** On software adapters, where programs take seconds to compile. */
const fewCases = ["3 x 3 with padding and a bias", "windows side by side", "a channel a group", "all at once"];

/** The rows that a backend is held to. */
export function casesOn(backend: string): [string, ConvCase][] {
  return Object.entries(convCases).filter(([name]) => backend === "cpu" || fewCases.includes(name));
}

export const convCases: Readonly<Record<string, ConvCase>> = {
  "one window": { x: [1, 1, 3, 3], weight: [1, 1, 3, 3] },
  "a window of one element": { x: [2, 3, 5, 4], weight: [6, 3, 1, 1] },
  "3 x 3 with padding and a bias": { x: [2, 3, 7, 5], weight: [4, 3, 3, 3], hasBias: true, options: { padding: 1 } },
  "odd sizes, without padding": { x: [3, 2, 9, 11], weight: [5, 2, 3, 2] },
  stride: { x: [2, 3, 10, 7], weight: [4, 3, 3, 3], options: { stride: 2, padding: 1 } },
  "a stride that leaves a rest": { x: [1, 2, 11, 12], weight: [3, 2, 2, 3], options: { stride: [3, 4] } },
  "windows side by side": { x: [2, 3, 8, 12], weight: [8, 3, 4, 4], options: { stride: 4 } },
  dilation: { x: [1, 2, 9, 10], weight: [3, 2, 3, 3], options: { dilation: [2, 3], padding: [1, 4] } },
  "more padding than the window is wide": { x: [1, 1, 2, 3], weight: [2, 1, 2, 2], options: { padding: [3, 4] } },
  groups: { x: [2, 6, 6, 5], weight: [4, 3, 3, 3], options: { groups: 2, padding: 1 } },
  "a channel a group": { x: [2, 5, 7, 6], weight: [10, 1, 3, 3], hasBias: true, options: { groups: 5, padding: 1, stride: [1, 2] } },
  "all at once": {
    x: [2, 4, 13, 11],
    weight: [6, 2, 3, 2],
    hasBias: true,
    options: { groups: 2, stride: [2, 3], padding: [2, 1], dilation: [2, 3] },
  },
  "whole panels": { x: [1, 8, 16, 16], weight: [16, 8, 3, 3], options: { padding: 1 } },
};

/** Values between −1 and 1 that differ everywhere, as f32 holds them. */
export function numbers(shape: readonly number[], seed: number): number[] {
  const count = shape.reduce((a, b) => a * b, 1);
  return Array.from({ length: count }, (_, i) => Math.fround(Math.sin(i * 1.7 + seed * 3.1)));
}

/** torch.nn.functional.conv2d, sum by sum in float64. */
export function convolution({ x, weight, hasBias = false, options = {} }: ConvCase): { shape: number[]; values: number[] } {
  const pair = (value: Conv2dOptions["stride"], usual: number): readonly [number, number] =>
    value === undefined ? [usual, usual] : typeof value === "number" ? [value, value] : value;
  const [stride, padding, dilation] = [pair(options.stride, 1), pair(options.padding, 0), pair(options.dilation, 1)];
  const { groups = 1 } = options;
  const [batch, channels, height, width] = x;
  const [outputs, own, kernelRows, kernelColumns] = weight;
  const [xs, ws, bs] = [numbers(x, 1), numbers(weight, 2), numbers([outputs], 3)];
  const count = (size: number, kernel: number, axis: 0 | 1): number =>
    Math.floor((size + 2 * padding[axis] - dilation[axis] * (kernel - 1) - 1) / stride[axis]) + 1;
  const [rows, columns] = [count(height, kernelRows, 0), count(width, kernelColumns, 1)];
  const values: number[] = [];
  for (let b = 0; b < batch; b++) {
    for (let o = 0; o < outputs; o++) {
      const first = Math.floor(o / (outputs / groups)) * own;
      for (let i = 0; i < rows; i++) {
        for (let j = 0; j < columns; j++) {
          let sum = hasBias ? (bs[o] ?? 0) : 0;
          for (let c = 0; c < own; c++) {
            for (let k = 0; k < kernelRows; k++) {
              for (let l = 0; l < kernelColumns; l++) {
                const [h, w] = [i * stride[0] + k * dilation[0] - padding[0], j * stride[1] + l * dilation[1] - padding[1]];
                if (h < 0 || w < 0 || h >= height || w >= width) continue;
                const at = ((b * channels + first + c) * height + h) * width + w;
                sum += (xs[at] ?? Number.NaN) * (ws[((o * own + c) * kernelRows + k) * kernelColumns + l] ?? Number.NaN);
              }
            }
          }
          values.push(sum);
        }
      }
    }
  }
  return { shape: [batch, outputs, rows, columns], values };
}
