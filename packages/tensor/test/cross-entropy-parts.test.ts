import {
  type Device,
  device,
  linearCrossEntropy,
  linearCrossEntropyBackward,
  planStatistics,
  realize,
  Tensor,
  tensor,
} from "@lowrank/tensor";
import { testDevice } from "test-support";
import { expect, test } from "vitest";
import { Device as PlannedDevice } from "../src/graph/device.js";
import { planExecutor } from "../src/schedule/plan-executor.js";
import { planningDevice } from "../src/schedule/planning.js";
import { values } from "./matmul-cases.js";
import { planInterpreter } from "./plan-interpreter.js";

/** Losses, dHidden and dWeight of as many rows and classes. */
function losses(dev: Device, rows: number, classes: number, width: number): Tensor[] {
  const hidden = tensor(values(rows * width, 1, "f32"), { shape: [rows, width], device: dev });
  const weight = tensor(values(classes * width, 2, "f32"), { shape: [classes, width], device: dev });
  const labels = tensor(
    Array.from({ length: rows }, (_, i) => (i % 5 === 3 ? -100 : (i * 7919) % classes)),
    { dtype: "i32", device: dev },
  );
  const dLoss = tensor(values(rows, 3, "f32"), { device: dev });
  const loss = linearCrossEntropy(hidden, weight, labels);
  const { node } = loss;
  if (node.op !== "output") throw new Error("linearCrossEntropy is no composite");
  const total = new Tensor({ op: "output", of: node.of, index: 1, shape: [rows], dtype: "f32" }, dev);
  return [loss, ...linearCrossEntropyBackward([hidden, weight, labels, total, dLoss], true)];
}

test("where a backend has no kernel for it, the logits of linear cross-entropy are there part by part", async () => {
  // As webgpu plans: without a kernel for sums of products, and with few bindings a kernel.
  const { leastSummedRows: _, ...backend } = planInterpreter().backend;
  const like = new PlannedDevice("webgpu", { ...backend, limits: { ...backend.limits, maxBindings: 10 } }, planExecutor());
  const { device: dev, plans } = planningDevice(like);
  const [rows, classes, width] = [4096, 20_011, 128];
  await realize(...losses(dev, rows, classes, width));
  const { arenaBytes } = planStatistics(plans[0] as (typeof plans)[0]);
  // All logits would be 313 MiB. Alive are those of a part, their gradient, and two sums of the weight's gradient, 10 MiB each.
  expect(arenaBytes).toBeLessThan(2 * 32 * 2 ** 20 + 24 * 2 ** 20);
});

test("linear cross-entropy in two parts = what the cpu backend's kernel gives", async () => {
  const [rows, classes, width] = [257, 33_013, 3];
  const compute = async (dev: Device): Promise<ArrayLike<number>[]> => {
    const results = losses(dev, rows, classes, width);
    await realize(...results);
    return Promise.all(results.map((result) => result.data()));
  };
  const other = await device("cpu");
  const [want, got] = [await compute(other), await compute(await testDevice())];
  other.dispose();
  for (const [i, exact] of want.entries()) {
    const wrong = Array.from(exact).findIndex((x, at) => !(Math.abs(x - (got[i]?.[at] ?? Number.NaN)) <= 2e-5));
    // Two f32 results, each off by the rounding of sums of up to 33,013 terms that are at most 1 in all.
    expect(wrong).toBe(-1);
  }
});

test.each([49_152, 50_257, 512, 31])(
  "of %i classes those that are improbable one by one count together, beside one that has nearly all of a row's probability",
  async (classes) => {
    const dev = await testDevice();
    const label = 29;
    const logits = Float32Array.from({ length: classes }, (_, i) => (i === label ? 18 : 1 + 0.5 * Math.sin(i)));
    const hidden = tensor(
      Array.from({ length: 8 }, () => [1]),
      { device: dev },
    );
    const weight = tensor(logits, { shape: [classes, 1], device: dev });
    const labels = tensor(new Array<number>(8).fill(label), { dtype: "i32", device: dev });
    const loss = await linearCrossEntropy(hidden, weight, labels).mean().item();
    const exact = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - 18), 0));
    // Each of the others adds 4e-8, less than half a rounding of 1; all of 49,152 add 2.2e-3. Those of the label's own block are summed with it; logits of 18 are rounded to 1e-6.
    expect(Math.abs(loss - exact)).toBeLessThan(4e-5);
  },
);
