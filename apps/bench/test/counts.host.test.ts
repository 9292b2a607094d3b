// The bars that do not depend on time, in a quick form: what is counted here is counted the same on every machine.
import { compile, type Device, device, matmul, tensor } from "@lowrank/tensor";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { kernelCounts, memoryOfStep, movedBytes } from "../src/bars/plan.js";
import { type ModelShape, shapes } from "../src/shapes.js";
import { observe } from "../src/steps/observe.js";
import { minimumBytes } from "../src/steps/traffic.js";
import { stepPlan, trainStep } from "../src/steps/train-step.js";

const quick: ModelShape = { ...shapes.tiny, name: "quick", layers: 2, batch: 2, length: 32 };

/** The bars; of the bytes, which may be 1.5 times the least, what is reached. */
const reached = { kernelsPerLayer: 30, optimizerKernels: 4, bytes: 1.43, memory: 1.15 };

let dev: Device;
beforeAll(async () => {
  dev = await device("cpu");
});
afterAll(() => dev.dispose());

describe("a LoRA step", () => {
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
