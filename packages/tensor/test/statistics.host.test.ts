import { compile, type Plan, planStatistics, type Tensor, tensor } from "@lowrank/tensor";
import { expect, test } from "vitest";
import { planInterpreter } from "./plan-interpreter.js";

async function planOf(shapes: readonly (readonly number[])[], build: (...inputs: Tensor[]) => Tensor): Promise<Plan> {
  const dev = planInterpreter();
  const inputs = shapes.map((shape) =>
    tensor(
      Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => i),
      { device: dev, shape },
    ),
  );
  await compile(build)(...inputs).data();
  const plan = dev.plans.at(-1);
  if (!plan) throw new Error("no plan");
  return plan;
}

test("a fused elementwise kernel reads each operand and writes its result", async () => {
  const { kernels, arenaBytes, boundBytes } = planStatistics(await planOf([[64], [64]], (a, b) => (a as Tensor).mul(b as Tensor).add(1)));
  expect(kernels.map(({ kind, readBytes, writtenBytes }) => ({ kind, readBytes, writtenBytes }))).toEqual([
    { kind: "loop", readBytes: 512, writtenBytes: 256 },
  ]);
  expect(arenaBytes).toBe(0);
  expect(boundBytes).toBe(768);
});

test("a broadcast operand is read with the elements that it has, a slice with those that are used", async () => {
  const broadcast = planStatistics(await planOf([[8, 16], [16]], (a, b) => (a as Tensor).add(b as Tensor)));
  expect(broadcast.kernels[0]?.readBytes).toBe(4 * (128 + 16));
  const part = planStatistics(await planOf([[8, 16]], (a) => (a as Tensor).narrow(0, 2, 1).mul(2)));
  expect(part.kernels[0]?.readBytes).toBe(4 * 16);
});

test("a matrix product reads its operands and writes its result", async () => {
  const plan = await planOf(
    [
      [4, 8],
      [8, 16],
    ],
    (a, b) => (a as Tensor).matmul(b as Tensor),
  );
  const [kernel] = planStatistics(plan).kernels;
  expect(kernel?.readBytes).toBe(4 * (32 + 128));
  expect(kernel?.writtenBytes).toBe(4 * 64);
});

test("the least memory is what is alive at one time, and the plan's own layout is no smaller", async () => {
  const plan = await planOf([[64, 64]], (a) => {
    const first = (a as Tensor).matmul(a as Tensor);
    const second = first.matmul(first);
    return second.matmul(second);
  });
  const { lowerBoundBytes, arenaBytes, kernels } = planStatistics(plan);
  expect(kernels.length).toBe(3);
  expect(lowerBoundBytes).toBe(2 * 4 * 64 * 64);
  expect(arenaBytes).toBeGreaterThanOrEqual(lowerBoundBytes);
});
