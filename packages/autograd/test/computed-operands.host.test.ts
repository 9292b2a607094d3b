import { grad } from "@lowrank/autograd";
import { conv2d, type Plan, realize, tensor } from "@lowrank/tensor";
import { expect, test } from "vitest";
import { blockWeight, unpackings } from "../../tensor/test/computed-operands.js";
import { planInterpreter } from "../../tensor/test/plan-interpreter.js";

/** Elements of the largest tensor that a plan keeps in its own memory. */
function largestInner(plan: Plan | undefined): number {
  return Math.max(0, ...(plan?.slots ?? []).map((slot) => (slot.kind === "arena" ? slot.elementCount : 0)));
}

function productCount(plan: Plan | undefined): number {
  const single = (plan?.kernels ?? []).flatMap((kernel) => (kernel.kind === "group" ? kernel.members : [kernel]));
  return single.filter((kernel) => kernel.kind === "matmul").length;
}

for (const [way, unpack] of Object.entries(unpackings)) {
  test(`${way}: a frozen weight in blocks that two layers share is not whole in f32 in the plan of its gradients`, async () => {
    const dev = planInterpreter();
    const width = 32;
    const weight = unpack(blockWeight(width, width, dev));
    const x = tensor(new Float32Array(2 * width).fill(0.1), { shape: [2, width], device: dev });
    const a = tensor(new Float32Array(width).fill(0.1), { shape: [width, 1], device: dev });
    const b = tensor(new Float32Array(width).fill(0.1), { shape: [1, width], device: dev });
    const layer = (h: typeof x): typeof x => h.matmul(weight.transpose()).add(h.matmul(a).matmul(b));
    const loss = layer(layer(x).tanh()).square().sum();
    await realize(loss, ...grad(loss, [a, b, x]));
    const plan = dev.plans.at(-1);
    expect(largestInner(plan)).toBeLessThan(width * width);
    // Twice forward and twice for what is in front.
    expect(productCount(plan)).toBeGreaterThanOrEqual(4);
  });
}

test("a convolution and both of its gradients are products over patches that are not stored", async () => {
  const dev = planInterpreter();
  const made = (shape: readonly number[]): ReturnType<typeof tensor> => {
    return tensor(new Float32Array(shape.reduce((m, n) => m * n, 1)).fill(0.5), { shape, device: dev });
  };
  const [x, weight] = [made([2, 3, 6, 5]), made([4, 3, 3, 3])];
  const loss = conv2d(x, weight, null, { padding: 1 }).tanh().square().sum();
  await realize(loss, ...grad(loss, [x, weight]));
  const plan = dev.plans.at(-1);
  expect(productCount(plan)).toBe(3);
  // The padded image has 336 elements and the padded gradient 448; patches of the one would be 1,620 and of the other 2,160.
  expect(largestInner(plan)).toBeLessThanOrEqual(448);
});
