import { grad } from "@lowrank/autograd";
import { realize, type Tensor, tensor } from "@lowrank/tensor";
import { newDevice } from "test-support";
import { expect, it } from "vitest";

it("gradients through results that were evicted equal those through results that stay", async () => {
  const size = 2 ** 14;
  const count = 60;
  const gradients: number[][] = [];
  for (const budgetBytes of [3 * 2 ** 20, 64 * 2 ** 20]) {
    const dev = await newDevice({ budgetBytes, threads: 2 });
    const w = tensor([0.5], { device: dev });
    const results: Tensor[] = [];
    for (let i = 0; i < count; i++) {
      const t = tensor([i / count], { device: dev })
        .expand([size])
        .add(0.25);
      await t.data();
      results.push(t);
    }
    expect(results.some((t) => t.storage?.hasBuffer === false)).toBe(budgetBytes < count * size * 4);
    const own: number[] = [];
    // The oldest are evicted first.
    for (const t of [...results.slice(0, 8), ...results.slice(-2)]) {
      const [dw, dt] = grad(t.mul(w).tanh().mean(), [w, t]) as [Tensor, Tensor]; // one each
      await realize(dw, dt);
      own.push(await dw.item(), (await dt.data())[size - 1] ?? Number.NaN);
      for (const done of [dw, dt]) done.dispose();
    }
    gradients.push(own);
    dev.dispose();
  }
  expect(gradients[0]).toEqual(gradients[1]);
  expect(new Set(gradients[0]).size).toBeGreaterThan(10);
});
