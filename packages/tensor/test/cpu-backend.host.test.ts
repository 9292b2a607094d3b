import { afterAll, describe, expect, it } from "vitest";
import { createCpuBackend } from "../src/backends/cpu/backend.js";
import { Heap } from "../src/backends/cpu/heap.js";
import { KernelLibrary, type PrintKernel } from "../src/backends/cpu/library.js";
import { nodeEnvironment } from "../src/backends/cpu/node.js";
import type { StepList } from "../src/backends/cpu/steps.js";

import type { BackendBuffer } from "../src/graph/backend.js";
import { ExprMakers } from "../src/kernels/expr.js";
import type { LoopKernel, ScatterAddKernel } from "../src/kernels/kernel.js";
import { boundOf } from "../src/kernels/template.js";
import { controlBytes } from "../src/kernels/wasm/driver.js";
import { printCopy } from "../src/kernels/wasm/scatter.js";
import { DeviceError } from "../src/tensor/errors.js";
import { boundPlan, runKernels } from "./cpu-plan.js";

const environment = nodeEnvironment();
const backends = [1, 2, 3].map((threadCount) => createCpuBackend({ environment, threadCount, soloNanoseconds: 0 }));
/** As in a browser's main thread: nothing may wait, so that kernels run on workers and `read` resolves later. */
const patient = createCpuBackend({ environment: { ...environment, mayBlock: false }, threadCount: 2 });
const single = createCpuBackend();
afterAll(() => {
  for (const backend of [...backends, patient, single]) backend.dispose();
});

/** to[i] = from[i] · 2 + 1. */
function step(count: number, from: number, to: number): LoopKernel {
  const makers = new ExprMakers();
  const index = makers.variable(0, count);
  const twice = makers.binary("mul", makers.load("f32", from, index), makers.constant("f32", 2));
  const value = makers.binary("add", twice, makers.constant("f32", 1));
  return { kind: "loop", outer: [], inner: count, reductions: [], stores: [{ scope: "element", slot: to, index, value }] };
}

describe("cpu backend", () => {
  it("adds scattered rows in order and skips indices out of range, whatever the number of threads", async () => {
    const [rows, width, count] = [1000, 37, 300];
    const indices = Array.from({ length: count }, (_, i) => ((i * 7919) % 13 === 0 ? -1 : i % 11 === 0 ? rows + 5 : (i * i * 31) % 97));
    const updates = Array.from({ length: count * width }, (_, i) => Math.fround(Math.sin(i)));
    const kernel: ScatterAddKernel = { kind: "scatterAdd", rows, width, count, indices: 0, updates: 1, out: 2 };
    const want = new Float32Array(rows * width);
    for (const [n, row] of indices.entries()) {
      if (row < 0 || row >= rows) continue;
      for (let i = 0; i < width; i++) want[row * width + i] = Math.fround((want[row * width + i] ?? 0) + (updates[n * width + i] ?? 0));
    }
    for (const backend of [...backends, patient, single]) {
      const [, , got] = await runKernels(
        backend,
        [kernel],
        [
          { dtype: "i32", values: indices },
          { dtype: "f32", values: updates },
          { dtype: "f32", values: new Array<number>(rows * width).fill(9) },
        ],
      );
      expect(got).toEqual(Array.from(want));
    }
  });

  it("copies whole slots", async () => {
    const values = Array.from({ length: 200_001 }, (_, i) => i % 251);
    for (const backend of [...backends, patient]) {
      const [, got] = await runKernels(
        backend,
        [{ kind: "copy", bytes: values.length, from: 0, to: 1 }],
        [
          { dtype: "u8", values },
          { dtype: "u8", values: values.map(() => 0) },
        ],
      );
      expect(got).toEqual(values);
    }
  });

  it("sums long rows in chunks with the same bits on any number of threads, to the accuracy of √n", async () => {
    const count = 1_000_003;
    const values = Array.from({ length: count }, (_, i) => Math.fround(Math.sin(i * 1.7) + 0.3));
    const exact = values.reduce((a, b) => a + b, 0);
    const makers = new ExprMakers();
    const value = makers.load("f32", 0, makers.variable(0, count));
    const kernel: LoopKernel = {
      kind: "loop",
      outer: [],
      inner: count,
      reductions: [
        { combine: "sum", value },
        { combine: "max", value: makers.binary("sub", value, makers.accumulator("f32", 0)) },
      ],
      stores: [
        { scope: "row", slot: 1, index: makers.int(0), value: makers.accumulator("f32", 0) },
        {
          scope: "row",
          slot: 1,
          index: makers.int(1),
          value: makers.binary("add", makers.accumulator("f32", 1), makers.accumulator("f32", 0)),
        },
        { scope: "element", slot: 2, index: makers.variable(0, count), value: makers.binary("div", value, makers.accumulator("f32", 0)) },
      ],
    };
    const results = await Promise.all(
      backends.map((backend) =>
        runKernels(
          backend,
          [kernel],
          [
            { dtype: "f32", values },
            { dtype: "f32", values: [0, 0] },
            { dtype: "f32", values: new Array<number>(count).fill(0) },
          ],
        ),
      ),
    );
    for (const other of results.slice(1)) {
      expect(other[1]).toEqual(results[0]?.[1]);
      expect(other[2]?.every((x, i) => x === results[0]?.[2]?.[i])).toBe(true);
    }
    const [total = 0, most = 0] = results[0]?.[1] ?? [];
    expect(Math.abs(total - exact) / (0.7 * count)).toBeLessThan(2 ** -24 * 8);
    expect(most).toBeCloseTo(1.3, 1);
    expect(results[0]?.[2]?.[count - 1]).toBeCloseTo((values[count - 1] ?? 0) / total, 12);
  });

  it("replays a plan on new buffers, in call order with writes and reads", async () => {
    for (const backend of [...backends, patient, single]) {
      const count = 5000;
      const plan = {
        ...boundPlan(
          [step(count, 0, 2), step(count, 2, 1)],
          [
            { dtype: "f32", values: new Array<number>(count).fill(0) },
            { dtype: "f32", values: new Array<number>(count).fill(0) },
          ],
        ),
        arenaBytes: count * 4,
      };
      const executable = backend.prepare({
        ...plan,
        slots: [...plan.slots, { kind: "arena", dtype: "f32", elementCount: count, bytes: count * 4, offset: 0 }],
      });
      const [a, b] = [backend.allocate(count * 4), backend.allocate(count * 4)];
      backend.write(a, new Uint8Array(new Float32Array(count).fill(1).buffer));
      for (let i = 0; i < 3; i++) {
        backend.run(executable, [a, b]);
        backend.run(executable, [b, a]);
      }
      const last = backend.allocate(count * 4);
      backend.run(executable, [a, last]);
      backend.write(a, new Uint8Array(count * 4));
      const got = new Float32Array((await backend.read(last, count * 4)).buffer);
      // Seven runs of two steps x → 2x + 1 from 1.
      expect(new Set(got)).toEqual(new Set([2 ** 15 - 1]));
      const before = backend.counters.bytesInUse;
      for (const buffer of [a, b, last]) backend.free(buffer);
      executable.dispose();
      await backend.finish();
      expect(backend.counters.bytesInUse).toBeLessThan(before);
    }
  });

  it("finds new kernel functions for which the memory has just grown", async () => {
    // Each worker takes its time between looking at the memory and reading what is in it.
    const slowly =
      "const load = Atomics.load; Atomics.load = (...a) => { for (const end = Date.now() + 4; Date.now() < end; ); return load(...a); };";
    const { spawn } = environment;
    if (!spawn) return expect.fail("Node has workers");
    const slow = { ...environment, spawn: ((program, data) => spawn(slowly + program, data)) satisfies typeof spawn };
    for (let round = 0; round < 5; round++) {
      const backend = createCpuBackend({ environment: slow, threadCount: 4, soloNanoseconds: 0 });
      for (let count = 200_000; count < 200_040; count++) {
        const slots = [0, 1].map(() => ({ dtype: "f32", values: { length: count } as number[] }) as const);
        const executable = backend.prepare(boundPlan([step(count, 0, 1)], slots));
        const [from, to] = slots.map(() => backend.allocate(count * 4)) as [BackendBuffer, BackendBuffer];
        backend.run(executable, [from, to]);
        expect(new Float32Array((await backend.read(to, 4, count * 4 - 4)).slice().buffer)).toEqual(Float32Array.of(1));
      }
      // A worker that failed says so now.
      await new Promise((resolve) => setTimeout(resolve, 50));
      backend.dispose();
    }
  });

  it("gives freed memory out again, and makes nothing new for plans like those it has seen", async () => {
    const [backend] = backends as [(typeof backends)[0]];
    const slots = [
      { dtype: "f32" as const, values: new Array<number>(3000).fill(1) },
      { dtype: "f32" as const, values: new Array<number>(3000).fill(0) },
    ];
    await runKernels(backend, [step(3000, 0, 1)], slots);
    const before = { ...backend.counters };
    for (let i = 0; i < 20; i++) await runKernels(backend, [step(3000, 0, 1)], slots);
    expect(backend.counters).toMatchObject({
      buffersCreated: before.buffersCreated,
      pipelinesCreated: before.pipelinesCreated,
      bytesInUse: before.bytesInUse,
      peakBytes: before.peakBytes,
    });
  });

  it("refuses what the budget does not hold, with a remedy", () => {
    const small = createCpuBackend({ budgetBytes: 2 ** 20 });
    expect(() => small.allocate(2 ** 21)).toThrow(DeviceError);
    expect(() => small.allocate(2 ** 21)).toThrow(/budget of 1\.0 MiB.*smaller batch/);
    expect(() => small.write(small.allocate(8), new Uint8Array(9))).toThrow(/leaves the buffer/);
    small.dispose();
    expect(() => small.allocate(1)).toThrow(/disposed/);
  });

  it("tells the time of each kernel when asked", async () => {
    const names: string[] = [];
    const backend = createCpuBackend({ environment, threadCount: 2, onKernel: ({ name, ms }) => names.push(`${name} ${ms >= 0}`) });
    await runKernels(
      backend,
      [step(3000, 0, 1), { kind: "copy", bytes: 12000, from: 1, to: 0 }],
      [
        { dtype: "f32", values: new Array<number>(3000).fill(1) },
        { dtype: "f32", values: new Array<number>(3000).fill(0) },
      ],
    );
    expect(names).toEqual(["loop true", "copy true"]);
    backend.dispose();
  });

  it("compiles other kernels after one whose printer threw, and that one when it is asked for again", () => {
    const counters = { buffersCreated: 0, pipelinesCreated: 0, plansPrepared: 0, kernelsRun: 0, bytesInUse: 0, peakBytes: 0 };
    const library = new KernelLibrary(new Heap(false, controlBytes(1), 2 ** 26, counters), { isShared: false }, counters);
    const copy: PrintKernel = (module, _, name) => printCopy(module, name);
    const fails: PrintKernel = () => {
      throw new Error("no such instruction");
    };
    const template = boundOf(step(4, 0, 1), () => "f32").template;
    const steps = (): StepList => library.steps(template, "", () => ({ steps: [], scratchBytes: library.entry("copy", copy) }));
    const before = steps();
    library.entry("damaged", fails);
    expect(() => library.publish()).toThrow("no such instruction");
    expect(counters.pipelinesCreated).toBe(0);
    library.entry("other", copy);
    library.publish();
    // What was made of functions that are not there is made again.
    const again = steps();
    expect(again).not.toBe(before);
    const mended = library.entry("damaged", copy);
    library.publish();
    expect(counters.pipelinesCreated).toBe(3);
    for (const entry of [again.scratchBytes, mended]) expect(library.table.get(entry)).toBeTypeOf("function");
  });
});
