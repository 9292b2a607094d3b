import { grad } from "@lowrank/autograd";
import { type Device, device, sum, type Tensor, tensor } from "@lowrank/tensor";
import { inTurn, testBackend, testDevice } from "test-support";
import { beforeAll, expect, test } from "vitest";
import { slope } from "./differences.js";
import { expressions, inputsOn, intsOn, weighted } from "./expressions.js";

let reference: Device;
let tested: Device;

beforeAll(async () => {
  reference = await device("reference");
  tested = await testDevice();
});

// f32 against float64: gradients of these sizes are sums of some dozen products of numbers up to about 50.
const tolerance = 2e-4;

test.each(inTurn(Object.entries(expressions), ([name]) => name))(
  "first and second derivatives of %s = the float64 reference's",
  async (_name, expression) => {
    const [want = [], got = []] = await Promise.all(
      [reference, tested].map((dev) => {
        const inputs = inputsOn(dev, expression);
        const loss = weighted(expression.build(inputs, intsOn(dev)));
        return Promise.all([...grad(loss, inputs), ...grad(slope(loss, inputs), inputs)].map((t: Tensor) => t.data()));
      }),
    );
    for (const [i, data] of want.entries()) {
      const values = Array.from(data);
      const largest = values.reduce((size, value) => Math.max(size, Math.abs(value)), 1);
      for (const [j, value] of values.entries()) {
        const message = `result ${i}, element ${j}: ${got[i]?.[j]} instead of ${value}`;
        expect(Math.abs((got[i]?.[j] ?? Number.NaN) - value), message).toBeLessThanOrEqual(tolerance * largest);
      }
    }
  },
);

test.each(["silu", "sigmoid", "gelu"] as const)("%s has a finite gradient however far out", async (name) => {
  const values = [-1e4, -200, -90, -11, -1, 0, 1, 11, 90, 200, 1e4];
  const x = tensor(values, { device: tested });
  const y = name === "gelu" ? x.gelu("tanh") : x[name]();
  const [dx] = grad(sum(y), [x]);
  const slopes = [...((await dx?.data()) ?? [])];
  expect(slopes.every(Number.isFinite), slopes.join()).toBe(true);
  const [far = Number.NaN, right = Number.NaN] = [slopes[0], slopes.at(-1)];
  expect(far).toBeCloseTo(0, 6);
  expect(right).toBeCloseTo(name === "sigmoid" ? 0 : 1, 6);
});

/** WGSL lets a compiler assume that there is no NaN. */
test.skipIf(testBackend() !== "cpu")("where all are -inf, logsumexp has a gradient of NaN, and softmax is NaN, as in torch", async () => {
  const x = tensor([Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY, 0, Number.NEGATIVE_INFINITY], { shape: [2, 2], device: tested });
  const [dx] = grad(sum(x.logsumexp(-1)), [x]);
  const nan = Number.NaN;
  expect(Array.from((await dx?.data()) ?? [])).toEqual([nan, nan, 1, 0]);
  expect(Array.from(await x.softmax(-1).data())).toEqual([nan, nan, 1, 0]);
  expect(Array.from(await x.logSoftmax(-1).data())).toEqual([nan, nan, 0, Number.NEGATIVE_INFINITY]);
});

test("the smallest of ties share the gradient, as in torch.amin", async () => {
  const x = tensor([2, 1, 1, 1, 3, 5], { shape: [2, 3], device: tested });
  const [dx] = grad(sum(x.min(-1)), [x]);
  expect(Array.from((await dx?.data()) ?? [])).toEqual([0, 0.5, 0.5, 1, 0, 0]);
});
