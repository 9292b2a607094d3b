import { type Device, fourBitValues, realize, type Tensor, tensor } from "@lowrank/tensor";
import { expect, test } from "vitest";
import type { Plan } from "../../src/kernels/kernel.js";
import { isComputed } from "../../src/kernels/products.js";
import { planInterpreter } from "../plan-interpreter.js";
import { blockWeights, nested } from "./weights.js";

const ones = (rows: number, columns: number, dev: Device): Tensor =>
  tensor(new Float32Array(rows * columns).fill(1), { shape: [rows, columns], device: dev });

/** Elements of the largest tensor that a plan keeps in its own memory. */
function largestInner(plan: Plan | undefined): number {
  return Math.max(0, ...(plan?.slots ?? []).map((slot) => (slot.kind === "arena" ? slot.elementCount : 0)));
}

/** Products of one weight, forward twice and back, never give it memory. */
async function expectNeverStored(dev: ReturnType<typeof planInterpreter>, weight: Tensor): Promise<void> {
  const [rows = 0, columns = 0] = weight.shape;
  const [x, dy] = [ones(2, columns, dev), ones(3, rows, dev)];
  await realize(x.matmul(weight.transpose()).tanh(), dy.matmul(weight), x.mul(2).add(1).matmul(weight.transpose()));
  const plan = dev.plans.at(-1);
  const single = (plan?.kernels ?? []).flatMap((kernel) => (kernel.kind === "group" ? kernel.members : [kernel]));
  const products = single.flatMap((kernel) => (kernel.kind === "matmul" ? [kernel] : []));
  expect(products.map(({ b }) => isComputed(b))).toEqual([true, true, true]);
  expect(largestInner(plan)).toBeLessThan((rows * columns) / 4);
}

for (const [name, make] of blockWeights)
  test(`a weight in ${name} is never whole in f32 in a plan's memory`, async () => {
    const dev = planInterpreter();
    await expectNeverStored(dev, make(32, 256, dev));
  });

test("nor is one in nested 4 bits whose blocks run over the ends of rows", async () => {
  const dev = planInterpreter();
  const shape = [30, 80];
  const size = 30 * 80;
  const packed = tensor(
    Uint8Array.from({ length: size / 2 }, (_, i) => (i * 37) & 255),
    { dtype: "u8", device: dev },
  );
  const code = tensor(
    Float32Array.from({ length: 16 }, (_, i) => i - 8),
    { device: dev },
  );
  await expectNeverStored(dev, fourBitValues({ packed, code, absmax: nested(Math.ceil(size / 64), dev), blockSize: 64, shape }));
});
