import { type Device, realize, type Tensor, tensor } from "@lowrank/tensor";
import { describe, expect, test } from "vitest";
import type { Kernel, Plan } from "../src/kernels/kernel.js";
import { isComputed, productsOf } from "../src/kernels/products.js";
import { blockWeight, unpackings } from "./computed-operands.js";
import { planInterpreter } from "./plan-interpreter.js";

const [rows, columns] = [16, 64];

function ones(shape: readonly number[], dev: Device): Tensor {
  return tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(1), { shape, device: dev });
}

/** The products of a plan, of which each reads an operand that is computed. */
function products(plan: Plan | undefined): (Kernel & { kind: "matmul" })[] {
  const single = (plan?.kernels ?? []).flatMap((kernel) => (kernel.kind === "group" ? kernel.members : [kernel]));
  return single.flatMap((kernel) => (kernel.kind === "matmul" ? [kernel] : []));
}

/** Elements of the largest tensor that a plan keeps in its own memory. */
function largestInner(plan: Plan | undefined): number {
  return Math.max(0, ...(plan?.slots ?? []).map((slot) => (slot.kind === "arena" ? slot.elementCount : 0)));
}

describe("a weight in blocks is never whole in f32 in a plan's memory", () => {
  for (const [way, unpack] of Object.entries(unpackings)) {
    test(`${way}: one product`, async () => {
      const dev = planInterpreter();
      await ones([2, columns], dev)
        .matmul(unpack(blockWeight(rows, columns, dev)).transpose())
        .data();
      const plan = dev.plans.at(-1);
      expect(products(plan).map(({ b }) => isComputed(b))).toEqual([true]);
      expect(largestInner(plan)).toBeLessThan(rows * columns);
    });
    test(`${way}: several products, forward and back, that share it`, async () => {
      const dev = planInterpreter();
      const weight = unpack(blockWeight(rows, columns, dev));
      const [x, dy] = [ones([2, columns], dev), ones([3, rows], dev)];
      const results = [
        x.matmul(weight.transpose()).tanh(),
        dy.matmul(weight),
        x.mul(2).add(1).matmul(weight.transpose()),
        weight.matmul(ones([columns, 2], dev)),
      ];
      await realize(...results);
      const plan = dev.plans.at(-1);
      expect(products(plan).flatMap((kernel) => productsOf(kernel).map(({ a, b }) => isComputed(a) || isComputed(b)))).toEqual([
        true,
        true,
        true,
        true,
      ]);
      expect(largestInner(plan)).toBeLessThan(rows * columns);
    });
  }
});

test.each([
  ["one row an expert reads its matrix where it lies", 1, false],
  ["one row an expert, transposed, likewise", 1, true],
])("matrices chosen by number: %s, and is what a copy of it gives", async (_name, rows, isTransposed) => {
  const dev = planInterpreter();
  const stack = tensor(
    Float32Array.from({ length: 5 * 8 * 12 }, (_, i) => Math.sin(i)),
    { shape: [5, 8, 12], device: dev },
  );
  const [experts, chosen] = [[4, 0, 4], tensor([4, 0, 4], { dtype: "i32", device: dev })];
  const weight = isTransposed ? stack.t() : stack;
  const [inner = 0, outer = 0] = weight.shape.slice(1);
  const x = ones([3, rows, inner], dev);
  const found = await x.matmul(weight.gather(chosen, 0)).data();
  const plan = dev.plans.at(-1);
  expect(products(plan).map(({ b }) => isComputed(b))).toEqual([true]);
  expect(largestInner(plan)).toBeLessThan(3 * 8 * 12);
  const all = await weight.data();
  for (const [block, expert] of experts.entries())
    for (let column = 0; column < outer; column++) {
      const want = Array.from({ length: inner }, (_, k) => all[(expert * inner + k) * outer + column] ?? Number.NaN);
      expect(found[block * outer + column]).toBeCloseTo(
        want.reduce((sum, value) => sum + value, 0),
        5,
      );
    }
});

test("an operand that reads as much as it is, is stored and fuses with what makes it", async () => {
  const dev = planInterpreter();
  const x = ones([8, 16], dev);
  await x
    .mul(ones([8, 16], dev))
    .matmul(ones([16, 8], dev))
    .data();
  expect(products(dev.plans.at(-1)).map(({ a, b }) => [isComputed(a), isComputed(b)])).toEqual([[false, false]]);
});

test("a value that is no larger than what it is made of is computed once, before the product that expands it", async () => {
  const dev = planInterpreter();
  const h = ones([4, 4], dev)
    .matmul(ones([4, 9], dev))
    .maximum(0);
  const wide = h
    .reshape([4, 1, 9])
    .mul(ones([1, 5, 1], dev))
    .reshape([20, 9]);
  await ones([3, 20], dev).matmul(wide).data();
  const plan = dev.plans.at(-1);
  expect(products(plan).map(({ b }) => isComputed(b))).toEqual([false, true]);
  expect(plan?.slots.some((slot) => slot.kind === "arena" && slot.elementCount === 36)).toBe(true);
  expect(largestInner(plan)).toBe(36);
});
