import { compile, type Plan, planStatistics, type Tensor, tensor } from "@lowrank/tensor";
import fc from "fast-check";
import { expect, test } from "vitest";
import { roomShare } from "../src/schedule/plan-executor.js";
import { planInterpreter } from "./plan-interpreter.js";

interface Sizes {
  readonly layers: number;
  readonly rows: number;
  readonly width: number;
}

/** x through tanh(x w) layers and back again, as a backward pass does: each layer's result is used when the next ones are long done. */
function thereAndBack(x: Tensor, weights: readonly Tensor[]): Tensor {
  const hidden = [x];
  for (const w of weights) hidden.push((hidden.at(-1) as Tensor).matmul(w).exp().add(1).log().mul(0.1));
  let gradient = hidden.at(-1) as Tensor;
  for (const [i, w] of [...weights.entries()].reverse()) gradient = gradient.mul(hidden[i + 1] as Tensor).matmul(w.t());
  return gradient.sum(-1);
}

/** The values, and the plan that computed them with this much memory beside weights, argument and result. */
async function computed({ layers, rows, width }: Sizes, roomBytes?: number): Promise<{ values: number[]; plan: Plan }> {
  // The interpreter does not count what lies in memory already; argument and result are still to come.
  const dev = planInterpreter(roomBytes === undefined ? undefined : roomBytes / roomShare + rows * width * 4 + Math.ceil(rows / 64) * 256);
  const filled = (shape: readonly [number, number], seed: number): Tensor =>
    tensor(
      Array.from({ length: shape[0] * shape[1] }, (_, i) => Math.sin(i * 1.7 + seed)),
      { device: dev, shape },
    );
  const weights = Array.from({ length: layers }, (_, i) => filled([width, width], i));
  const run = compile((x: Tensor) => thereAndBack(x, weights));
  const values = Array.from(await run(filled([rows, width], 99)).data());
  return { values, plan: dev.plans.at(-1) as Plan };
}

const sizes = { layers: 12, rows: 64, width: 16 };

test("a plan that does not fit rematerializes values, with results equal to the last bit", async () => {
  const free = await computed(sizes);
  const { arenaBytes, kernels } = planStatistics(free.plan);
  const tight = await computed(sizes, arenaBytes / 2);
  const statistics = planStatistics(tight.plan);
  expect(statistics.arenaBytes).toBeLessThanOrEqual(arenaBytes / 2);
  expect(statistics.kernels.length).toBeGreaterThan(kernels.length);
  // Every layer a second time, but the first and the last: recomputing goes on from what was kept.
  expect(statistics.kernels.length).toBeLessThan(kernels.length + sizes.layers);
  expect(tight.values).toEqual(free.values);
});

test("a plan that fits is left alone", async () => {
  const free = await computed(sizes);
  expect((await computed(sizes, free.plan.arenaBytes)).plan.names).toEqual(free.plan.names);
});

test("whatever the budget, results are the same and memory is not more", async () => {
  const chain = fc.record({ layers: fc.integer({ min: 2, max: 10 }), rows: fc.constantFrom(3, 32, 100), width: fc.constantFrom(8, 24) });
  await fc.assert(
    fc.asyncProperty(chain, fc.double({ min: 0.05, max: 1, noNaN: true }), async (shape, share) => {
      const free = await computed(shape);
      const { arenaBytes } = free.plan;
      const tight = await computed(shape, share * arenaBytes);
      expect(tight.values).toEqual(free.values);
      expect(tight.plan.arenaBytes).toBeLessThanOrEqual(arenaBytes);
    }),
    { numRuns: 30 },
  );
});

test("what is overwritten before its second use is not computed again from it", async () => {
  const run = async (budgetBytes?: number): Promise<number[]> => {
    const dev = planInterpreter(budgetBytes);
    const state = tensor(new Array(256).fill(1), { device: dev, shape: [16, 16] });
    const step = compile((x: Tensor) => {
      const kept = state.matmul(x).exp();
      const large = kept.matmul(x).exp();
      state.assign(state.add(1));
      return large.matmul(kept).matmul(large).sum(-1);
    });
    const x = tensor(
      Array.from({ length: 256 }, (_, i) => Math.cos(i) / 16),
      { device: dev, shape: [16, 16] },
    );
    await step(x).data();
    return Array.from(await step(x).data());
  };
  expect(await run(4096)).toEqual(await run());
});
