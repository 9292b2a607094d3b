// Slow: threads that come late or not at all are waited for in earnest.
import { afterAll, describe, expect, it, vi } from "vitest";
import { createCpuBackend } from "../src/backends/cpu/backend.js";
import type { CpuEnvironment, WorkerData } from "../src/backends/cpu/environment.js";
import { nodeEnvironment } from "../src/backends/cpu/node.js";
import { compile } from "../src/graph/compile.js";
import { tensor } from "../src/graph/create.js";
import { Device } from "../src/graph/device.js";
import type { Tensor } from "../src/graph/tensor.js";
import { control } from "../src/kernels/wasm/driver.js";
import { planExecutor } from "../src/schedule/plan-executor.js";
import { DeviceError } from "../src/tensor/errors.js";

const environment = nodeEnvironment();
const opened: Device[] = [];
afterAll(() => {
  for (const device of opened) device.dispose();
});

interface Watched {
  /** What workers run before their program, and what they are handed besides. */
  readonly prelude?: string;
  readonly extra?: object;
  readonly onKernel?: () => void;
}

/** A device and, as they start, what its workers were handed; the first `absentCount` of them never run. */
function watched(
  threadCount: number,
  absentCount: number,
  { prelude = "", extra = {}, ...options }: Watched = {},
): { device: Device; workers: WorkerData[] } {
  const workers: WorkerData[] = [];
  const { spawn } = environment;
  if (!spawn) throw new Error("Node has workers.");
  const watching: CpuEnvironment = {
    ...environment,
    spawn: (program, data) =>
      workers.push(data) > absentCount ? spawn(prelude + program, { ...data, ...extra }) : { terminate: () => undefined },
  };
  const device = new Device("cpu", createCpuBackend({ ...options, environment: watching, threadCount }), planExecutor());
  opened.push(device);
  return { device, workers };
}

function wordsOf([first]: readonly WorkerData[]): Int32Array {
  if (!first) throw new Error("No worker was started.");
  return new Int32Array(first.memory.buffer);
}

const side = 640;
const values = (factor: number): Float32Array => Float32Array.from({ length: side ** 2 }, (_, i) => Math.sin(i * factor));

/** A product that takes long enough for four threads to wait for each other, of operands of the device's own. */
function product(device: Device): () => Tensor {
  const [a, b] = [1.7, 0.9].map((factor) => tensor(values(factor), { device, shape: [side, side] })) as [Tensor, Tensor];
  return () => a.matmul(b);
}

/** All bits of a tensor, as a text that compares quickly. */
async function bitsOf(t: Tensor): Promise<string> {
  return Buffer.from(((await t.data()) as Float32Array).buffer).toString("base64");
}

function expected(): Promise<string> {
  return bitsOf(product(watched(1, 0).device)());
}

async function until(holds: () => boolean | Promise<boolean>, ms = 5000): Promise<boolean> {
  for (const deadline = Date.now() + ms; Date.now() < deadline; ) {
    if (await holds()) return true;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return holds();
}

describe("threads of the cpu backend", () => {
  it("start the spare for a thread that was woken and does not come", async () => {
    const { device, workers } = watched(2, 1);
    const multiply = product(device);
    const want = await expected();
    expect((await bitsOf(multiply())) === want).toBe(true);
    expect(workers.length).toBe(1);
    // As if the only worker had gone to sleep.
    Atomics.add(wordsOf(workers), control.sleepers / 4, 1);
    expect((await bitsOf(multiply())) === want).toBe(true);
    expect(workers.map(({ thread }) => thread)).toEqual([1, 1]);
    expect(new Set(workers.map(({ scratch }) => scratch)).size).toBe(2);
    const load = (at: number): number => Atomics.load(wordsOf(workers), at / 4);
    const notify = vi.spyOn(Atomics, "notify");
    // When the spare wakes for a job it goes into the reserve, and is called from it in the place of the one that never comes.
    const answered = await until(async () => {
      expect((await bitsOf(multiply())) === want).toBe(true);
      await until(() => load(control.sleepers) === 2, 20);
      return notify.mock.calls.filter(([, at]) => at === control.called / 4).length >= 5 && load(control.called) === 0;
    });
    notify.mockRestore();
    expect(answered).toBe(true);
    expect(workers.length).toBe(2);
  });

  it("are as many as before however often one seems late", async () => {
    for (const threadCount of [2, 3, 4]) {
      const { device, workers } = watched(threadCount, 0);
      const multiply = product(device);
      const want = await expected();
      await multiply().data();
      const words = wordsOf(workers);
      expect(await until(() => Atomics.load(words, control.sleepers / 4) === threadCount - 1)).toBe(true);
      // One that never comes, so that each job calls the spare unless nobody has gone into the reserve since.
      Atomics.add(words, control.sleepers / 4, 1);
      for (let i = 0; i < 60; i++) {
        expect((await bitsOf(multiply())) === want).toBe(true);
        if (i % 3 === 0) await new Promise((resolve) => setTimeout(resolve, i % 4));
      }
      expect(workers.length).toBe(threadCount);
      const load = (at: number): number => Atomics.load(wordsOf(workers), at / 4);
      // At rest everybody sleeps, one of them perhaps asked to go into the reserve when it wakes.
      expect(await until(() => load(control.called) === 0 && load(control.sleepers) === threadCount + load(control.surplus))).toBe(true);
    }
  });

  it("call nobody where all come in time, or wait for nobody", async () => {
    const { device, workers } = watched(2, 1);
    const multiply = product(device);
    for (let i = 0; i < 20; i++) await multiply().data();
    expect(workers.length).toBe(1);
    const alone = watched(1, 0);
    await product(alone.device)().data();
    expect(alone.workers.length).toBe(0);
  });

  it("let JavaScript go on while one is at its last tile, but nothing touches what it reads before it is done", async () => {
    // A worker compiles new kernels with a tile in its hands, for 100 ms where it finds a 1 here, and leaves a 2.
    const slowness = new Int32Array(new SharedArrayBuffer(4));
    const prelude = `{
      const { Module } = WebAssembly;
      WebAssembly.Module = function (bytes) {
        if (Atomics.compareExchange(data.slowness, 0, 1, 2) === 1) Atomics.wait(data.slowness, 0, 2, 100);
        return new Module(bytes);
      };
    }`;
    const { device, workers } = watched(2, 0, { prelude, extra: { slowness } });
    const alone = watched(1, 0).device;
    const unfinished = (): number => Atomics.load(wordsOf(workers), control.unfinished / 4);
    const other = new Float32Array(side ** 2).fill(Number.NaN);
    // The first takes the memory of what the worker reads.
    const waits = [() => tensor(other, { device }), () => device.finish()];
    let heldCount = 0;
    for (let i = 0; i < 100 && heldCount < 4; i++) {
      // A kernel that is new, by its number of operations, in one step.
      const compute = compile((x: Tensor) => Array.from({ length: 20 + i }).reduce<Tensor>((y) => y.tanh(), x));
      const x = tensor(values(1.7), { device });
      Atomics.store(slowness, 0, 1);
      // Planning takes longer than the event loop may wait; a clock that nearly stands still lets this thread take part all the same.
      const real = performance.now.bind(performance);
      const clock = vi.spyOn(performance, "now").mockImplementation(() => real() / 1000);
      const got = compute(x);
      clock.mockRestore();
      // One that starts compiles without a tile.
      if (Atomics.exchange(slowness, 0, 0) !== 2 || unfinished() === 0) continue;
      x.dispose();
      await waits[heldCount++ % waits.length]?.();
      expect(unfinished()).toBe(0);
      expect((await bitsOf(got)) === (await bitsOf(compute(tensor(values(1.7), { device: alone }))))).toBe(true);
    }
    expect(heldCount).toBe(4);
  });

  it("are all done when a kernel's time is told", async () => {
    const unfinished: number[] = [];
    const onKernel = (): unknown => unfinished.push(Atomics.load(wordsOf(workers), control.unfinished / 4));
    const { device, workers } = watched(2, 0, { onKernel });
    const multiply = product(device);
    for (let i = 0; i < 100; i++) await multiply().data();
    expect(unfinished).toEqual(new Array(100).fill(0));
  });

  it.each([
    ["at its start", 1],
    ["with a tile in its hands", 3],
  ])("fail with what one says that fails %s", async (_, modules) => {
    const { spawn } = environment;
    if (!spawn) return expect.fail("Node has workers");
    // As where the system has no memory left for compiled code.
    const failing = `{
      const { Module } = WebAssembly;
      let count = 0;
      WebAssembly.Module = function (bytes) { if (++count >= ${modules}) throw new RangeError("no memory for code"); return new Module(bytes); };
    }`;
    for (const mayBlock of [true, false]) {
      const broken: CpuEnvironment = { ...environment, mayBlock, spawn: (program, data) => spawn(failing + program, data) };
      const device = new Device("cpu", createCpuBackend({ environment: broken, threadCount: 2, soloNanoseconds: 0 }), planExecutor());
      opened.push(device);
      const multiply = product(device);
      // Each has a kernel that is new, which the worker meets unless this thread is done before.
      const runs = async (): Promise<void> => {
        for (let i = 0; i < 100; i++)
          await multiply()
            .add(i)
            .mul(multiply())
            .slice([0, side - i])
            .data();
      };
      await expect(runs()).rejects.toThrow(DeviceError);
      await expect(runs()).rejects.toThrow(/a thread failed: RangeError: no memory for code\. Open the device again/);
    }
  });
});
