// What a training loop keeps, and what every family of kernels computes, on each backend.
import type { Device } from "@lowrank/tensor";
import { newDevice, testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";
import { growthAfterStepTwo } from "../src/bars/plan.js";
import { families } from "../src/families/index.js";
import { readyCase } from "../src/families/measure.js";
import { type ModelShape, shapes } from "../src/shapes.js";
import { longRun } from "../src/steps/toy.js";
import { trainStep } from "../src/steps/train-step.js";

const quick: ModelShape = { ...shapes.tiny, name: "quick", layers: 2, batch: 2, length: 32 };

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

describe("a LoRA step", () => {
  test("makes no buffer, no pipeline and no plan after its second time", async () => {
    expect(await growthAfterStepTwo(dev, quick, 5)).toEqual({ buffers: 0, pipelines: 0, plans: 0 });
  });
  test("lowers its loss", async () => {
    const step = trainStep(dev, quick, "lora");
    const first = await step.loss();
    for (let i = 0; i < 10; i++) await step.loss();
    expect(await step.loss()).toBeLessThan(first);
    step.dispose();
  });
});

test("a long run keeps no buffers and no heap", async () => {
  // Not on the shared one: what other tests left there may be collected, and come back, in the middle.
  const own = await newDevice();
  const { buffers, heapBytes, deviceBytes } = await longRun(own, 600, 200);
  own.dispose();
  expect(buffers).toBe(0);
  expect(deviceBytes).toBe(0);
  expect(heapBytes).toBeLessThan(5e6);
});

describe.each(families.map((family) => [family.name, family] as const))("%s", (_, family) => {
  test.each(family.cases(true).map((item) => [item.name, item] as const))("%s agrees with float64", async (_name, item) => {
    (await readyCase(dev, item)).dispose();
  });
});
