import { type Device, tensor } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { beforeAll, expect, test } from "vitest";
import { grad } from "../src/index.js";

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

test("20,000 times x · 1.0001 + 0.1 has its value and its gradient, in few programs", async () => {
  const start = tensor([1, 2], { device: dev });
  let x = start;
  let expected = 1;
  for (let i = 0; i < 20_000; i++) {
    x = x.mul(1.0001).add(0.1);
    expected = Math.fround(Math.fround(expected * Math.fround(1.0001)) + Math.fround(0.1));
  }
  const before = dev.counters.pipelinesCreated;
  const [slope] = grad(x.sum(), [start]);
  expect((await slope?.data())?.[1]).toBeCloseTo(1.0001 ** 20_000, 1);
  // Products that are added to at once may be rounded once: 20,000 roundings of 6e-8 each.
  expect((await x.data())[0]).toBeCloseTo(expected, -2);
  expect(dev.counters.pipelinesCreated - before).toBeLessThanOrEqual(12);
});

test("x = x + x is planned at once, before a gather too", async () => {
  let x = tensor([1, 3], { device: dev, dtype: "i32" });
  for (let i = 0; i < 31; i++) x = x.add(x);
  expect(await x.toArray()).toEqual([-(2 ** 31), -(2 ** 31)]);
  let index = tensor([0, 1], { device: dev, dtype: "i32" });
  for (let i = 0; i < 23; i++) index = index.add(index);
  expect(await tensor([5, 6, 7], { device: dev }).gather(index).toArray()).toEqual([5, 7]);
});
