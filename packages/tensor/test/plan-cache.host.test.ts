import { compile, device, type Tensor, tensor } from "@lowrank/tensor";
import { expect, test } from "vitest";
import type { Target } from "../src/graph/executor.js";
import { Storage } from "../src/graph/storage.js";
import { Forms } from "../src/graph/words.js";
import { areAlike, structureOf } from "../src/schedule/structure.js";

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

test("plans share the memory of their intermediates: the largest counts, not the sum", async () => {
  const dev = await device("cpu", { threads: 1 });
  const largest = 400;
  const sizes = [100, 200, largest, 300];
  const fns = sizes.map((size) => {
    const x = tensor(new Float32Array(size * size).fill(1 / size), { device: dev, shape: [size, size] });
    return { size, x, run: compile((t: Tensor) => t.matmul(t).matmul(t).matmul(t).sum()) };
  });
  const before = dev.counters.bytesInUse;
  const grown = (): number => dev.counters.bytesInUse - before;
  for (const { size, x, run } of fns.filter((fn) => fn.size === largest)) expect(await run(x).item()).toBeCloseTo(size, 1);
  const alone = grown();
  for (const { size, x, run } of [...fns, ...fns]) expect(await run(x).item()).toBeCloseTo(size, 1);
  // The three others bring the arguments of their kernels and no memory for values.
  expect(grown() - alone).toBeLessThan(3 * 8192);
  // Two products of the largest are alive at a time, beside an operand of the third, packed.
  expect(alone).toBeGreaterThan(3 * 4 * largest * largest);
  expect(grown()).toBeLessThan(3.2 * 4 * largest * largest);
  for (const { run } of fns) run.dispose();
  dev.dispose();
});

test("graphs are alike where nodes of equal forms read alike, of whatever storages, and only by one table of forms", async () => {
  const dev = await device("cpu", { threads: 1 });
  const graph = (factor: number): Target[] => {
    const x = tensor([1, 2], { device: dev });
    const y = x.mul(factor).add(x.mul(factor));
    return [{ storage: new Storage(dev, y.dtype, y.size), value: y.node }];
  };
  const forms = new Forms();
  const one = structureOf(graph(2), forms);
  // Both products are one node.
  expect(one.graph.nodes.filter((node) => node.op === "binary" && node.kind === "mul").length).toBe(1);
  expect(areAlike(one, structureOf(graph(2), forms))).toBe(true);
  expect(areAlike(one, structureOf(graph(3), forms))).toBe(false);
  expect(areAlike(one, structureOf(graph(2), new Forms()))).toBe(false);
  dev.dispose();
});
