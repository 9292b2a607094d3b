import { afterAll, describe, expect, it } from "vitest";
import { createCpuBackend } from "../src/backends/cpu/backend.js";
import { nodeEnvironment } from "../src/backends/cpu/node.js";
import { Device } from "../src/backends/device.js";
import { eventLoopTurn } from "../src/backends/event-loop.js";
import { planExecutor } from "../src/schedule/plan-executor.js";
import { tensor } from "../src/tensor/create.js";
import { DeviceError } from "../src/tensor/errors.js";
import type { Tensor } from "../src/tensor/tensor.js";

const environment = nodeEnvironment();
const opened: Device[] = [];
afterAll(() => {
  for (const device of opened) device.dispose();
});

function open(threadCount: number, { mayBlock = true, budgetBytes = 2 ** 30 } = {}): Device {
  const device = new Device(
    "cpu",
    createCpuBackend({ environment: { ...environment, mayBlock }, threadCount, budgetBytes }),
    planExecutor(),
  );
  opened.push(device);
  return device;
}

const side = 512;
const matrix = (device: Device, factor: number): Tensor =>
  tensor(
    Float32Array.from({ length: side ** 2 }, (_, i) => Math.sin(i * factor)),
    { device, shape: [side, side] },
  );

/** Many products, one after the other, in one plan: 0.27 GFLOP each. */
function powers(x: Tensor, count: number): Tensor {
  let y = x;
  for (let i = 0; i < count; i++) y = y.matmul(x).mul(1 / side);
  return y;
}

/** All bits of a tensor, as a text that compares quickly. */
async function bitsOf(t: Tensor): Promise<string> {
  return Buffer.from(((await t.data()) as Float32Array).buffer).toString("base64");
}

/** Turns of the event loop while something runs, and the longest time between two. */
async function turnsDuring(work: () => Promise<unknown>): Promise<{ count: number; longestMs: number; ms: number }> {
  const start = performance.now();
  let [count, longestMs, last, isOver] = [0, 0, start, false];
  const watch = async (): Promise<void> => {
    while (!isOver) {
      // Not a timer, which fires late, and not eventLoopTurn, which would count as one of the backend's own.
      await new Promise((resolve) => setImmediate(resolve));
      longestMs = Math.max(longestMs, performance.now() - last);
      last = performance.now();
      count++;
    }
  };
  const watching = watch();
  await work();
  isOver = true;
  await watching;
  return { count, longestMs, ms: performance.now() - start };
}

const kinds = [
  ["one thread", 1, {}],
  ["two threads", 2, {}],
  ["two workers beside a thread that may not wait", 2, { mayBlock: false }],
] as const;

describe.each(kinds)("a long plan on %s", (_, threadCount, options) => {
  it("leaves the event loop its turns", async () => {
    const device = open(threadCount, options);
    const x = matrix(device, 1.7);
    await powers(x, 50).data(); // plans
    const { count, longestMs, ms } = await turnsDuring(() => powers(x, 50).data());
    expect(ms).toBeGreaterThan(100);
    expect(count).toBeGreaterThan(5);
    // A slice is 8 ms; a busy machine takes this thread away for longer.
    expect(longestMs).toBeLessThan(Math.max(ms / 2, 100));
  });

  it("is followed by what was asked for after it, in that order", async () => {
    const [device, plain] = [open(threadCount, options), open(1)];
    const expected = await bitsOf(powers(matrix(plain, 0.3), 20));
    const doubled = await bitsOf(matrix(plain, 0.3).mul(2));
    const replaced = await bitsOf(matrix(plain, 0.9));
    for (let i = 0; i < 2; i++) {
      const x = matrix(device, 0.3);
      const y = await powers(x, 20).realize();
      const first = bitsOf(y);
      // Takes x's memory, if that goes too early, and overwrites it.
      const z = await x.mul(2).realize();
      x.dispose();
      const other = matrix(device, 0.9);
      y.assign(other);
      const second = bitsOf(z);
      const third = bitsOf(y);
      expect((await first) === expected).toBe(true);
      expect((await second) === doubled).toBe(true);
      expect((await third) === replaced).toBe(true);
      for (const t of [y, z, other]) t.dispose();
    }
  });

  it("that is running when the device is disposed ends with an error", async () => {
    const device = open(threadCount, options);
    const x = matrix(device, 1.7);
    await eventLoopTurn();
    const y = await powers(x, 300).realize();
    const read = y.data();
    device.dispose();
    await expect(read).rejects.toThrow(DeviceError);
  });
});

it("a loop that never waits keeps within the budget, though memory comes back in order", async () => {
  const device = open(2, { budgetBytes: 32 * 2 ** 20 });
  const x = matrix(device, 1.7);
  const last = powers(x, 8);
  for (let i = 0; i < 40; i++) (await powers(x, 8).realize()).dispose();
  expect((await bitsOf(last)) === (await bitsOf(powers(matrix(open(1), 1.7), 8)))).toBe(true);
  expect(device.counters.peakBytes).toBeLessThanOrEqual(32 * 2 ** 20);
});
