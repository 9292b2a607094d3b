import { afterAll, describe, expect, it } from "vitest";
import { createCpuBackend } from "../src/backends/cpu/backend.js";
import type { CpuBuffer } from "../src/backends/cpu/buffer.js";
import { nodeEnvironment } from "../src/backends/cpu/node.js";
import { packedBy } from "../src/backends/cpu/panel-layout.js";
import type { Backend, BackendBuffer } from "../src/graph/backend.js";
import { ExprMakers } from "../src/kernels/expr.js";
import type { Kernel, MatmulKernel } from "../src/kernels/kernel.js";
import { decode, dtypeBytes, encode } from "../src/tensor/dtype.js";
import { boundPlan, type TestSlot } from "./cpu-plan.js";
import { reference, values, view } from "./matmul-cases.js";

const environment = nodeEnvironment();
const backends = [1, 2, 3].map((threadCount) => createCpuBackend({ environment, threadCount, soloNanoseconds: 0 }));
/** As in a browser's main thread: everything is enqueued. */
const patient = createCpuBackend({ environment: { ...environment, mayBlock: false }, threadCount: 2 });
afterAll(() => {
  for (const backend of [...backends, patient]) backend.dispose();
});

const [m, n, k] = [23, 72, 65];

/** a · b with b as given or stored transposed; slots 0, 1 and 2. */
function times(b: "n" | "t", rows = m): MatmulKernel {
  return {
    kind: "matmul",
    batch: [],
    m: rows,
    n,
    k,
    a: view(0, rows, k, [], "n", [], 0).view,
    b: view(1, k, n, [], b, [], 0).view,
    out: 2,
  };
}

function slotsOf(rows = m): TestSlot[] {
  const zeros = new Array<number>(rows * n).fill(0);
  return [values(rows * k, 1, "f32"), values(k * n, 2, "f32"), zeros].map((all) => ({ dtype: "f32", values: all }));
}

/** A plan with buffers of its own, filled. */
function ready(backend: Backend, kernels: readonly Kernel[], slots: readonly TestSlot[]) {
  const executable = backend.prepare(boundPlan(kernels, slots));
  const buffers = slots.map(({ dtype, values: all }) => {
    const buffer = backend.allocate(all.length * dtypeBytes[dtype]);
    backend.write(buffer, encode(all, dtype));
    return buffer;
  });
  return { executable, buffers, run: () => backend.run(executable, buffers) };
}

async function read(backend: Backend, buffer: BackendBuffer | undefined): Promise<number[]> {
  if (!buffer) throw new Error("no such buffer");
  return Array.from(decode(await backend.read(buffer, buffer.bytes), "f32"));
}

const isKept = (buffer: BackendBuffer | undefined): boolean => (buffer as CpuBuffer).panels !== null;

describe("right operands kept as panels", () => {
  for (const b of ["n", "t"] as const) {
    it(`are laid out at the second run (stored ${b}), give the same bits, and read as before`, async () => {
      for (const backend of [...backends, patient]) {
        const slots = slotsOf();
        const before = backend.counters.bytesInUse;
        const { executable, buffers, run } = ready(backend, [times(b)], slots);
        run();
        expect(isKept(buffers[1])).toBe(false);
        const first = await read(backend, buffers[2]);
        const { out, size } = reference(times(b), slots[0]?.values ?? [], slots[1]?.values ?? []);
        for (const [i, want] of out.entries()) expect(Math.abs((first[i] ?? 0) - want)).toBeLessThan(2 ** -22 * (size[i] ?? 0));
        run();
        expect(isKept(buffers[1])).toBe(true);
        expect(await read(backend, buffers[2])).toEqual(first);
        run();
        expect(await read(backend, buffers[2])).toEqual(first);
        expect(isKept(buffers[1])).toBe(true);
        expect(await read(backend, buffers[1])).toEqual(slots[1]?.values);
        expect(isKept(buffers[1])).toBe(false);
        run();
        expect(await read(backend, buffers[2])).toEqual(first);
        for (const buffer of buffers) backend.free(buffer);
        executable.dispose();
        await backend.finish();
        // Compiled kernels and the workers' own memory stay.
        const after = backend.counters.bytesInUse;
        const again = ready(backend, [times(b)], slots);
        for (let i = 0; i < 5; i++) again.run();
        for (const buffer of again.buffers) backend.free(buffer);
        again.executable.dispose();
        await backend.finish();
        expect(backend.counters.bytesInUse).toBe(after);
        expect(after).toBeGreaterThanOrEqual(before);
      }
    });
  }

  it("are laid out in parts where columns are many and deep, and all at once where rows are", async () => {
    // 6.6 MB: more than a part of columns.
    const [rows, columns, depth] = [5, 1000, 1650];
    const slots: TestSlot[] = [
      values(rows * depth, 1, "f32"),
      values(columns * depth, 2, "f32"),
      new Array<number>(rows * columns).fill(0),
    ].map((all) => ({ dtype: "f32", values: all }));
    for (const b of ["n", "t"] as const) {
      const kernel: MatmulKernel = {
        ...{ kind: "matmul", batch: [], m: rows, n: columns, k: depth, out: 2 },
        a: view(0, rows, depth, [], "n", [], 0).view,
        b: view(1, depth, columns, [], b, [], 0).view,
      };
      for (const backend of [...backends, patient]) {
        const { buffers, run } = ready(backend, [kernel], slots);
        run();
        const first = await read(backend, buffers[2]);
        backend.write(buffers[2] as BackendBuffer, new Uint8Array(rows * columns * 4));
        run();
        expect(isKept(buffers[1])).toBe(true);
        expect(await read(backend, buffers[2])).toEqual(first);
        const right = await read(backend, buffers[1]);
        expect(right.every((x, i) => x === slots[1]?.values[i])).toBe(true);
        for (const buffer of buffers) backend.free(buffer);
      }
    }
  });

  it("follow what is written to them, whole or in part", async () => {
    for (const backend of [...backends, patient]) {
      const slots = slotsOf();
      const { buffers, run } = ready(backend, [times("n")], slots);
      const [, right] = buffers;
      if (!right) throw new Error("no right operand");
      run();
      run();
      expect(isKept(right)).toBe(true);
      const other = values(k * n, 9, "f32");
      backend.write(right, encode(other.slice(0, 100), "f32"), 400);
      const mixed = (slots[1]?.values ?? []).map((x, i) => (i >= 100 && i < 200 ? (other[i - 100] ?? 0) : x));
      for (const expected of [mixed, other]) {
        if (expected === other) backend.write(right, encode(other, "f32"));
        const { out } = reference(times("n"), slots[0]?.values ?? [], expected);
        for (let i = 0; i < 8; i++) {
          run();
          const got = await read(backend, buffers[2]);
          for (const [at, want] of out.entries()) expect(got[at]).toBeCloseTo(want, 4);
        }
        expect(isKept(right)).toBe(true);
      }
      for (const buffer of buffers) backend.free(buffer);
    }
  });

  it("lie as their tensor says for every other plan, and are laid out anew only after twice as many runs", async () => {
    for (const backend of [...backends, patient]) {
      const slots = slotsOf();
      const { buffers, run } = ready(backend, [times("n")], slots);
      const [left, right, out] = buffers as [BackendBuffer, BackendBuffer, BackendBuffer];
      run();
      const first = await read(backend, out);
      // One row reads the matrix where it lies.
      const single = ready(backend, [times("n", 1)], slotsOf(1));
      for (const runs of [2, 4, 8]) {
        const counted = runs === 2 ? 1 : 0;
        for (let i = counted; i < runs - 1; i++) run();
        expect(isKept(right)).toBe(false);
        run();
        expect(isKept(right)).toBe(true);
        expect(await read(backend, out)).toEqual(first);
        backend.run(single.executable, [left, right, single.buffers[2] as BackendBuffer]);
        expect(isKept(right)).toBe(false);
        const row = await read(backend, single.buffers[2]);
        for (const [i, x] of row.entries()) expect(x).toBeCloseTo(first[i] ?? 0, 4);
      }
      // Nor does a plan find them that writes them.
      for (let i = 0; i < 16; i++) run();
      expect(isKept(right)).toBe(true);
      const make = new ExprMakers();
      const index = make.variable(0, k * n);
      const value = make.binary("mul", make.load("f32", 0, index), make.constant("f32", 2));
      const doubled = ready(
        backend,
        [{ kind: "loop", outer: [], inner: k * n, reductions: [], stores: [{ scope: "element", slot: 0, index, value }] }],
        [slots[1] as TestSlot],
      );
      backend.run(doubled.executable, [right]);
      for (let i = 0; i < 3; i++) {
        run();
        expect(await read(backend, out)).toEqual(first.map((x) => x * 2));
      }
      for (const buffer of [...buffers, ...single.buffers, ...doubled.buffers]) backend.free(buffer);
    }
  });

  it("are left alone where a buffer is bound twice, once to be read otherwise", async () => {
    for (const backend of [...backends, patient]) {
      const square = 64;
      const kernel: MatmulKernel = {
        ...{ kind: "matmul", batch: [], m: square, n: square, k: square, out: 2 },
        a: view(0, square, square, [], "n", [], 0).view,
        b: view(1, square, square, [], "n", [], 0).view,
      };
      const all = values(square * square, 4, "f32");
      const slots: TestSlot[] = [all, all, all].map((list) => ({ dtype: "f32", values: list }));
      const { executable, buffers } = ready(backend, [kernel], slots);
      const [x, y, out] = buffers as [BackendBuffer, BackendBuffer, BackendBuffer];
      for (let i = 0; i < 3; i++) backend.run(executable, [x, y, out]);
      const first = await read(backend, out);
      expect(isKept(y)).toBe(true);
      for (let i = 0; i < 3; i++) {
        backend.run(executable, [y, y, out]);
        expect(isKept(y)).toBe(false);
        expect(await read(backend, out)).toEqual(first);
      }
      for (const buffer of buffers) backend.free(buffer);
    }
  });

  it("take part in sums of products, of which others are packed, and in several plans", async () => {
    const rank = 8;
    const low: MatmulKernel["plus"] = [
      { k: rank, a: view(3, m, rank, [], "n", [], 0).view, b: view(4, rank, n, [], "n", [], 0).view, factor: 0.5 },
    ];
    const slots: TestSlot[] = [
      ...slotsOf(),
      ...[values(m * rank, 5, "f32"), values(rank * n, 6, "f32")].map((list) => ({ dtype: "f32" as const, values: list })),
    ];
    const kernel = { ...times("t"), plus: low };
    for (const backend of [...backends, patient]) {
      const { buffers, run } = ready(backend, [kernel], slots);
      run();
      const first = await read(backend, buffers[2]);
      run();
      expect(buffers.map(isKept)).toEqual([false, true, false, false, false]);
      expect(await read(backend, buffers[2])).toEqual(first);
      const fewer = ready(backend, [times("t", 11)], slotsOf(11));
      backend.run(fewer.executable, [fewer.buffers[0] as BackendBuffer, buffers[1] as BackendBuffer, fewer.buffers[2] as BackendBuffer]);
      expect(isKept(buffers[1])).toBe(true);
      const plain = ready(backend, [times("t", 11)], slotsOf(11));
      plain.run();
      expect(await read(backend, fewer.buffers[2])).toEqual(await read(backend, plain.buffers[2]));
      for (const buffer of [...buffers, ...fewer.buffers, ...plain.buffers]) backend.free(buffer);
    }
  });

  it("stay where they are, and leave nothing behind, when the budget has no room for it", async () => {
    const slots = slotsOf();
    const ample = createCpuBackend({ environment, threadCount: 1 });
    const { buffers, run } = ready(ample, [times("n")], slots);
    run();
    const first = await read(ample, buffers[2]);
    const used = ample.counters.bytesInUse;
    ample.dispose();
    const kept: boolean[] = [];
    for (let extra = 0; extra <= 8192 && !kept.at(-1); extra += 256) {
      const tight = createCpuBackend({ environment, threadCount: 1, budgetBytes: used + extra });
      const again = ready(tight, [times("n")], slots);
      for (let i = 0; i < 4; i++) again.run();
      kept.push(isKept(again.buffers[1]));
      if (!kept.at(-1)) expect(tight.counters.bytesInUse).toBe(used);
      expect(await read(tight, again.buffers[2])).toEqual(first);
      tight.dispose();
    }
    // Not without room, not with room for one way alone, but in the end.
    expect(kept.length).toBeGreaterThan(3);
    expect(kept.at(-1)).toBe(true);
  });
});

describe("which operands a plan reads as panels only", () => {
  const find = (kernels: readonly Kernel[], slots: readonly TestSlot[]): number[] => [
    ...packedBy(boundPlan(kernels, slots)).layouts.keys(),
  ];
  const slots: TestSlot[] = [...slotsOf(), ...slotsOf()];
  const next = { ...times("n"), a: { ...times("n").a, slot: 3 }, out: 5 };

  it("names those that products share alike", () => {
    expect(find([times("n")], slots)).toEqual([1]);
    expect(find([times("n"), next], slots)).toEqual([1]);
    expect(find([{ kind: "group", members: [times("t"), { ...times("t"), out: 5 }] }], slots)).toEqual([1]);
    expect(
      find([{ ...times("n"), batch: [2], a: { ...times("n").a, batchStrides: [0] }, b: { ...times("n").b, batchStrides: [0] } }], slots),
    ).toEqual([1]);
  });

  it("leaves out what is read or written otherwise", () => {
    expect(find([times("n"), { ...next, b: times("t").b }], slots)).toEqual([]);
    expect(find([times("n"), { kind: "copy", bytes: 4, from: 1, to: 5 }], slots)).toEqual([]);
    expect(find([times("n"), { kind: "copy", bytes: 4, from: 5, to: 1 }], slots)).toEqual([]);
    expect(find([times("n"), times("n", 1)], slots)).toEqual([]);
    const make = new ExprMakers();
    const index = make.add(make.mul(make.variable(0, m), make.int(n)), make.variable(1, n));
    const value = make.binary("add", make.accumulator("f32", 0), make.load("f32", 1, make.variable(1, n)));
    const epilogue = { outer: [m], inner: n, stores: [{ scope: "element", slot: 5, index, value }] } as const;
    expect(find([{ ...times("n"), epilogue }], slots)).toEqual([]);
  });

  it("leaves out a buffer that another slot is bound to as well", () => {
    const plan = boundPlan([times("n"), { kind: "copy", bytes: k * n * 4, from: 5, to: 4 }], slots);
    const shared = plan.slots.map((slot, i) => (i === 4 && slot.kind === "bound" ? { ...slot, binding: 1 } : slot));
    expect([...packedBy(plan).layouts.keys()]).toEqual([1]);
    expect([...packedBy({ ...plan, slots: shared }).layouts.keys()]).toEqual([]);
  });

  it("leaves out what is a part, has columns that fill no panel, is not f32 or is multiplied by a factor", () => {
    const { b } = times("n");
    expect(find([{ ...times("n"), b: { ...b, offset: 8 } }], slots)).toEqual([]);
    expect(find([{ ...times("n"), n: n - 8 }], slots)).toEqual([]);
    expect(find([{ ...times("n"), n: 65, k: 72, b: { ...b, rowStride: 65 } }], slots)).toEqual([]);
    expect(find([times("n")], [slots[0] as TestSlot, { dtype: "bf16", values: slots[1]?.values ?? [] }, slots[2] as TestSlot])).toEqual([]);
    const plus = [{ k, a: times("n").a, b: { ...b, slot: 4 }, factor: 0.5 }];
    expect(find([{ ...times("n"), plus }], slots)).toEqual([1]);
  });
});
