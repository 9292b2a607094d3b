import { conv2d, type Device, type Tensor, tensor } from "@lowrank/tensor";
import { expect, test } from "vitest";
import { isComputed } from "../src/kernels/products.js";
import { convCases, numbers } from "./conv-cases.js";
import { planInterpreter } from "./plan-interpreter.js";

function made(shape: readonly number[], seed: number, dev: Device): Tensor {
  return tensor(Float32Array.from(numbers(shape, seed)), { shape, device: dev });
}

for (const [name, { x, weight, options = {} }] of Object.entries(convCases)) {
  if (name === "a window of one element") continue; // Its patches are the image itself.
  test(`${name}: a convolution's patches are not stored`, async () => {
    const dev = planInterpreter();
    const result = conv2d(made(x, 1, dev), made(weight, 2, dev), null, options);
    await result.data();
    const plan = dev.plans.at(-1);
    const { groups = 1 } = options;
    const patches = x[0] * groups * weight[1] * weight[2] * weight[3] * (result.shape[2] ?? 1) * (result.shape[3] ?? 1);
    expect(plan?.kernels.filter((kernel) => kernel.kind === "matmul").map(({ b }) => isComputed(b))).toEqual([true]);
    for (const slot of plan?.slots ?? []) if (slot.kind === "arena") expect(slot.elementCount).not.toBe(patches);
  });
}
