import { compile, device, type Tensor, tensor } from "@lowrank/tensor";
import { expect, test } from "vitest";

test("a new plan runs although compiled functions hold more plans than the cache keeps", async () => {
  const dev = await device("cpu", { threads: 1 });
  const x = tensor([1, 2, 3], { device: dev });
  const held = Array.from({ length: 80 }, (_, i) => compile((t: Tensor) => t.mul(i + 2)));
  for (const [i, times] of held.entries()) expect(await times(x).toArray()).toEqual([i + 2, 2 * i + 4, 3 * i + 6]);
  expect(await x.add(0.5).sum().item()).toBe(7.5);
  for (const times of held) times.dispose();
  expect(await x.sub(0.5).sum().item()).toBe(4.5);
  dev.dispose();
});
