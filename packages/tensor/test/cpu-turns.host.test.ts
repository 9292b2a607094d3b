import { afterAll, describe, expect, it, vi } from "vitest";
import { createCpuBackend } from "../src/backends/cpu/backend.js";
import { Heap } from "../src/backends/cpu/heap.js";
import { nodeEnvironment } from "../src/backends/cpu/node.js";
import { Queue } from "../src/backends/cpu/queue.js";
import { Threads } from "../src/backends/cpu/threads.js";
import { Workspace } from "../src/backends/cpu/workspace.js";
import { compile } from "../src/graph/compile.js";
import { tensor } from "../src/graph/create.js";
import { Device } from "../src/graph/device.js";
import { eventLoopTurn } from "../src/graph/event-loop.js";
import { Storage } from "../src/graph/storage.js";
import type { Tensor } from "../src/graph/tensor.js";
import "../src/ops/methods.js";
import { planExecutor } from "../src/schedule/plan-executor.js";
import { DeviceError } from "../src/tensor/errors.js";

const environment = nodeEnvironment();
const opened: Device[] = [];
afterAll(() => {
  for (const device of opened) device.dispose();
});

function open(threadCount: number, { mayBlock = true, budgetBytes = 2 ** 30, spawn = environment.spawn } = {}): Device {
  const device = new Device(
    "cpu",
    createCpuBackend({ environment: { ...environment, mayBlock, spawn }, threadCount, budgetBytes }),
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

  it("that is running when the device is disposed ends with an error, and its workers with it", async () => {
    const { spawn } = environment;
    if (!spawn) throw new Error("Node has workers.");
    const living = new Set<number>();
    const watched: NonNullable<typeof spawn> = (program, data) => {
      const worker = spawn(program, data);
      living.add(data.thread);
      return {
        ...worker,
        terminate: () => {
          living.delete(data.thread);
          worker.terminate();
        },
      };
    };
    const away = vi.spyOn(Threads.prototype, "runAway");
    try {
      const device = open(threadCount, { ...options, spawn: watched });
      const x = matrix(device, 1.7);
      await eventLoopTurn();
      const y = await powers(x, 300).realize();
      const read = y.data();
      await eventLoopTurn();
      const isAway = "mayBlock" in options;
      expect([living.size > 0, away.mock.calls.length > 0]).toEqual([threadCount > 1, isAway]);
      device.dispose();
      await expect(read).rejects.toThrow(DeviceError);
      expect(living.size).toBe(0);
      // Whoever waited for them for ever would keep all of the memory.
      await Promise.all(away.mock.results.map(({ value }) => value));
    } finally {
      away.mockRestore();
    }
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

it("a plan whose kernels are timed keeps its intermediates when a larger plan is made meanwhile", async () => {
  const results: string[] = [];
  for (const onKernel of [undefined, () => undefined]) {
    const backend = createCpuBackend({ environment, threadCount: 1, budgetBytes: 2 ** 30, ...(onKernel && { onKernel }) });
    const device = new Device("cpu", backend, planExecutor());
    opened.push(device);
    const x = matrix(device, 1.7);
    const y = await powers(x, 40).realize();
    await new Promise((resolve) => setTimeout(resolve, 20));
    const tall = tensor(new Float32Array(3000 * side).fill(0.5), { device, shape: [3000, side] });
    const z = await tall.matmul(x).tanh().matmul(x).tanh().matmul(x).realize();
    results.push((await bitsOf(y)) + (await bitsOf(z)));
  }
  expect(results[1] === results[0]).toBe(true);
});

it("what onKernel throws reaches the next read, and the device goes on", async () => {
  let isBroken = true;
  const onKernel = (): void => {
    if (isBroken) throw new RangeError("of the listener");
  };
  const device = new Device("cpu", createCpuBackend({ environment, threadCount: 1, onKernel }), planExecutor());
  opened.push(device);
  const x = tensor([1, 2], { device });
  await expect(x.mul(2).data()).rejects.toThrow("of the listener");
  isBroken = false;
  expect([...(await x.mul(3).data())]).toEqual([3, 6]);
});

describe("the queue", () => {
  /** Threads at which every job takes until it is waited for. */
  const busy = { runsInline: true, advance: () => false, settleSlice: () => true, settle: () => undefined } as unknown as Threads;
  const job = { begin: () => undefined, runAway: async () => undefined };

  it("tells who asked what an action has thrown, and goes on", async () => {
    const queue = new Queue(busy);
    queue.run(job);
    const failed = queue.after(() => {
      throw new RangeError("no memory for the copy");
    });
    queue.drain();
    await expect(failed).rejects.toThrow("no memory for the copy");
    expect(await queue.after(() => 7)).toBe(7);
  });

  it("lets a block that was given back serve what is enqueued from then on at once, and what is touched at once when it is done", () => {
    const counters = { buffersCreated: 0, pipelinesCreated: 0, plansPrepared: 0, kernelsRun: 0, bytesInUse: 0, peakBytes: 0 };
    const heap = new Heap(false, 4096, 2 ** 20, counters);
    const queue = new Queue(busy);
    heap.isDone = (ticket) => queue.isDone(ticket);
    const [first, second] = [heap.allocateInOrder(4096), heap.allocateInOrder(1024)];
    queue.run(job);
    heap.free(first, queue.ticket);
    heap.free(second, queue.ticket);
    expect(counters.bytesInUse).toBe(0);
    expect(heap.allocateInOrder(1024)).toBe(second);
    const touched = heap.allocate(4096);
    expect(touched).not.toBe(first);
    heap.free(touched);
    expect([heap.allocateInOrder(4096), heap.allocateInOrder(4096)].sort()).toEqual([first, touched].sort());
    heap.free(first, queue.ticket);
    expect(counters.buffersCreated).toBe(3);
    queue.drain();
    expect(heap.allocate(4096)).toBe(first);
    expect(counters.buffersCreated).toBe(3);
  });

  it("makes no buffers for steps under way: each takes what the one before gave back", async () => {
    const device = open(1);
    const step = compile((x: Tensor) => x.mul(2).add(1));
    const x = tensor(new Float32Array(2 ** 16), { device });
    const runs = (count: number): void => {
      for (let i = 0; i < count; i++) {
        const [input, bias] = [tensor(new Float32Array(2 ** 16).fill(i), { device }), tensor(i, { device })];
        for (const t of [step(input), input, bias]) t.dispose();
      }
    };
    runs(2);
    await device.backend.finish();
    const { buffersCreated } = device.counters;
    runs(50);
    expect(device.counters.buffersCreated).toBe(buffersCreated);
    expect([...(await step(x).data()).subarray(0, 2)]).toEqual([1, 1]);
  });

  it("may remove plans while the workspace makes room for another", () => {
    const megabyte = 2 ** 20;
    const counters = { buffersCreated: 0, pipelinesCreated: 0, plansPrepared: 0, kernelsRun: 0, bytesInUse: 0, peakBytes: 0 };
    const heap = new Heap(false, 4096, 60 * megabyte, counters);
    const queue = new Queue(busy);
    heap.reclaim = () => queue.drain();
    heap.isDone = (ticket) => queue.isDone(ticket);
    const workspace = new Workspace(heap, {
      releasesAtOnce: true,
      release: (address) => heap.free(address),
      beforeExchange: () => undefined,
    });
    const [large, small, larger] = [{}, {}, {}];
    workspace.add(large, 16 * megabyte);
    workspace.add(small, megabyte);
    const dropped = heap.allocate(30 * megabyte);
    queue.run(job);
    queue.do(() => workspace.remove(large));
    heap.free(dropped, queue.ticket);
    workspace.add(larger, 40 * megabyte);
    queue.run(job);
    queue.drain();
    expect(queue.isEmpty).toBe(true);
    expect(counters.bytesInUse).toBeLessThan(41 * megabyte);
  });
});

it("a result that is pinned while it is evicted stays where it is", async () => {
  const device = open(1);
  const storage = new Storage(device, "f32", 4, { isResult: true });
  device.backend.write(storage.buffer, new Uint8Array(new Float32Array([2, 3, 4, 5]).buffer));
  await storage.read();
  const evicted = storage.evict();
  storage.pin();
  await evicted;
  storage.unpin();
  device.backend.write(storage.buffer, new Uint8Array(new Float32Array([9, 9, 9, 9]).buffer));
  expect([...new Float32Array((await storage.read()).buffer)]).toEqual([9, 9, 9, 9]);
});
