import { type Device, device, full, realize, type Tensor, tensor } from "@lowrank/tensor";
import { expect, it } from "vitest";

const budgetBytes = 3 * 2 ** 20;

/** Keeps 20 matrices of 64 KiB until they are used in the opposite order. */
function thereAndBack(dev: Device): Tensor {
  let t = full([128, 128], 1 / 128, { device: dev }).add(tensor([0], { device: dev }));
  const hidden = Array.from({ length: 20 }, () => (t = t.matmul(t).add(0.5).div(128)));
  for (const h of hidden.reverse()) t = t.matmul(h);
  return t.sum();
}

it("a plan is made for the memory that garbage gives back: it computes nothing twice", async () => {
  const kernels: number[] = [];
  for (const hasGarbage of [false, true]) {
    const dev = await device("cpu", { budgetBytes, threads: 1 });
    const isFull = (): boolean => dev.counters.bytesInUse > budgetBytes * 0.8;
    while (hasGarbage && !isFull()) await realize(tensor([1], { device: dev }).expand([16384]).add(1));
    const before = dev.counters.kernelsRun;
    expect(await thereAndBack(dev).item()).toBeGreaterThan(0);
    kernels.push(dev.counters.kernelsRun - before);
    dev.dispose();
  }
  expect(kernels[1]).toBe(kernels[0]);
});
