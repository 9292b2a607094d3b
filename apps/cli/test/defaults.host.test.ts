import { describe, expect, it } from "vitest";
import { defaultEpochs, defaultLearningRate, defaultWarmup } from "../src/defaults.js";

const wide = (width: number): Parameters<typeof defaultLearningRate>[1] => ({ head: { inFeatures: width } }) as never;

describe("default learning rates", () => {
  it.each([
    ["lora", 128, 9e-3],
    ["lora", 576, 2e-3],
    ["lora", 4096, 2.8e-4],
    ["dora", 576, 2e-3],
    ["full", 576, 1e-4],
    ["parallel", 576, 1e-4],
    ["parallel", 128, 9.5e-4],
    ["ia3", 128, 5e-2],
    ["ia3", 4096, 5e-2],
    ["adapter", 576, 1e-3],
    ["adapter", 128, 4.5e-3],
    ["adalora", 128, 9e-2],
    ["norms", 576, 1e-2],
  ])("%s on a model %i wide: %f", (method, width, rate) => {
    expect(defaultLearningRate(method, wide(width))).toBe(rate);
  });
});

describe("default epochs", () => {
  it.each([
    ["a small model sees 300 rows 12 times", 1e6, 300, 12],
    ["a small model sees 1,000 rows 4 times", 1e6, 1000, 4],
    ["a large model sees 300 rows 3 times", 135e6, 300, 3],
    ["a large model sees 20 rows 12 times", 135e6, 20, 12],
    ["many rows are seen once", 1e6, 100_000, 1],
  ])("%s", (_, parameterCount, rowCount, epochs) => {
    const model = { namedParameters: () => new Map([["weight", { size: parameterCount }]]) };
    expect(defaultEpochs(rowCount, model as never)).toBe(epochs);
  });
});

it("the rate rises over a twentieth of the steps, and never over all of them", () => {
  expect([1, 10, 40, 450, 10_000].map(defaultWarmup)).toEqual([0, 0, 2, 20, 20]);
});
