// Slow: products large enough for every way of packing, each summed again in float64.
import { expectSameLists, expectSameNumbers } from "test-support";
import { afterAll, describe, expect, it } from "vitest";
import { createCpuBackend } from "../src/backends/cpu/backend.js";
import { nodeEnvironment } from "../src/backends/cpu/node.js";
import { ExprMakers } from "../src/kernels/expr.js";
import type { GroupKernel, MatmulKernel } from "../src/kernels/kernel.js";
import { asView } from "../src/kernels/products.js";
import { runKernels, type TestSlot } from "./cpu-plan.js";
import { product, type Row, reference, values, view } from "./matmul-cases.js";

const environment = nodeEnvironment();
/** With fused multiply-add where the runtime has it, and without; each on one, two and three threads. */
const variants = [...new Set([environment.hasRelaxedSimd, false])].map((hasRelaxedSimd) =>
  [1, 2, 3].map((threadCount) => createCpuBackend({ environment: { ...environment, hasRelaxedSimd }, threadCount, soloNanoseconds: 0 })),
);
afterAll(() => {
  for (const backend of variants.flat()) backend.dispose();
});

async function check(row: Row): Promise<void> {
  const { m, n, k, batch = [], aType = "f32", bType = "f32" } = row;
  const a = view(0, m, k, batch, row.a ?? "n", row.repeats?.a ?? []);
  const b = view(1, k, n, batch, row.b ?? "n", row.repeats?.b ?? []);
  const kernel: MatmulKernel = { kind: "matmul", batch, m, n, k, a: a.view, b: b.view, out: 2 };
  const slots = [
    { dtype: aType, values: values(a.count, 1, aType) },
    { dtype: bType, values: values(b.count, 2, bType) },
    { dtype: "f32" as const, values: values(product(batch) * m * n, 3, "f32") },
  ];
  const { out, size } = reference(kernel, slots[0]?.values ?? [], slots[1]?.values ?? []);
  for (const backends of variants) {
    const [actual = [], ...others] = await Promise.all(backends.map((backend) => runKernels(backend, [kernel], slots)));
    for (const other of others) expectSameLists(other, actual);
    const got = actual[2] ?? [];
    expect(got.length).toBe(out.length);
    for (const [i, want] of out.entries()) {
      // An f32 sum of k terms errs by √k half units of the last place of its size, some few times over.
      const tolerance = 4 * 2 ** -24 * (size[i] ?? 0) + 1e-30;
      if (!(Math.abs((got[i] ?? Number.NaN) - want) <= tolerance)) throw new Error(`element ${i}: ${got[i]} instead of ${want}`);
    }
  }
}

const sizes = [1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 31, 33, 67];
/** From 64 rows and 16 columns on, register tiles have six rows where multiply-add is fused: rows that fill the last panel, or lack one to five. */
const tallSizes = { m: [64, 65, 66, 67, 68, 69, 127, 131], n: [16, 17, 23, 32, 40, 67], k: [0, 1, 2, 3, 4, 5, 7, 8, 31] };

describe("cpu matmul against float64", () => {
  for (const a of ["n", "t", "s"] as const) {
    for (const b of ["n", "t", "s"] as const) {
      let state = 7;
      const one = (of: readonly number[]): number => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return of[Math.floor((state / 2 ** 32) * of.length)] ?? 1;
      };
      it(`is right for small sizes with operands stored ${a} and ${b}`, async () => {
        for (let i = 0; i < 40; i++) await check({ m: one(sizes), n: one(sizes), k: one(sizes), a, b });
      });

      it(`is right for many rows with operands stored ${a} and ${b}`, async () => {
        for (let i = 0; i < 20; i++) await check({ m: one(tallSizes.m), n: one(tallSizes.n), k: one(tallSizes.k), a, b });
      });
    }
  }

  const rows: readonly (Row & { readonly name: string })[] = [
    { name: "k = 0 gives zeros", m: 3, n: 5, k: 0 },
    { name: "several blocks of k", m: 9, n: 17, k: 1031 },
    { name: "several blocks of k, many rows", m: 67, n: 19, k: 1601 },
    { name: "k = 0 and many rows", m: 71, n: 37, k: 0 },
    { name: "columns of several tiles", m: 67, n: 1031, k: 13 },
    { name: "many rows for a batch", m: 67, n: 33, k: 19, batch: [2, 2], repeats: { b: [1] }, a: "t" },
    { name: "many rows of bf16 and f16", m: 71, n: 67, k: 45, aType: "bf16", bType: "f16", a: "t" },
    { name: "many rows of f16, k after k", m: 71, n: 67, k: 45, aType: "f16", bType: "bf16" },
    { name: "one row, a transposed weight", m: 1, n: 259, k: 300, b: "t" },
    { name: "one row, a weight", m: 1, n: 259, k: 300 },
    { name: "one row, a weight whose depth is split", m: 1, n: 259, k: 304 },
    { name: "three rows, a bf16 weight whose depth is split", m: 3, n: 1030, k: 72, bType: "bf16" },
    { name: "three rows, a transposed weight", m: 3, n: 130, k: 517, b: "t" },
    { name: "four rows, a weight", m: 4, n: 1100, k: 33 },
    { name: "rows for a batch, as attention decodes", m: 2, n: 37, k: 19, batch: [3, 2], repeats: { b: [1] } },
    { name: "the same with keys", m: 2, n: 37, k: 19, batch: [3, 2], b: "t", repeats: { b: [1] } },
    { name: "one column", m: 130, n: 1, k: 257 },
    { name: "tiles of several rows and columns, more than a block deep", m: 133, n: 801, k: 1031, a: "t" },
    { name: "bf16 rows, more than a block deep", m: 67, n: 270, k: 1031, aType: "bf16" },
    { name: "batches that share operands, more than a block deep", m: 13, n: 270, k: 1031, batch: [2, 3], repeats: { a: [0], b: [1] } },
    { name: "more batches than are packed at a time", m: 9, n: 264, k: 1031, batch: [9], a: "t" },
    { name: "columns in parts, several blocks deep", m: 5, n: 600, k: 4000, b: "t" },
    { name: "several tiles", m: 133, n: 277, k: 41, b: "t" },
    { name: "a low-rank projection down", m: 200, n: 8, k: 128, b: "t" },
    { name: "a low-rank projection up", m: 200, n: 128, k: 8, b: "t" },
    { name: "a low-rank gradient", m: 8, n: 128, k: 1000, a: "t" },
    { name: "the other low-rank gradient", m: 128, n: 8, k: 1000, a: "t" },
    { name: "attention scores", m: 33, n: 33, k: 16, batch: [2, 3], b: "t" },
    { name: "attention values", m: 33, n: 16, k: 33, batch: [2, 3] },
    { name: "grouped queries", m: 17, n: 19, k: 8, batch: [2, 2, 3], repeats: { b: [2] }, b: "t" },
    { name: "a weight for every batch", m: 17, n: 19, k: 8, batch: [4], repeats: { b: [0] } },
    { name: "one left operand for all", m: 5, n: 19, k: 8, batch: [4], repeats: { a: [0] } },
    { name: "a wide weight, packed in parts", m: 5, n: 40, k: 60000 },
    { name: "a bf16 weight", m: 37, n: 67, k: 45, bType: "bf16", b: "t" },
    { name: "an f16 weight", m: 37, n: 67, k: 45, bType: "f16" },
    ...[1, 2, 3, 4].flatMap((m) => [
      { name: `rows that read long columns ahead: ${m}`, m, n: 139, k: 301, b: "t" } as const,
      { name: `rows that read long bf16 columns ahead: ${m}`, m, n: 67, k: 530, b: "t", bType: "bf16" } as const,
    ]),
    { name: "one row, a bf16 weight", m: 1, n: 67, k: 45, bType: "bf16", b: "t" },
    { name: "one row, an f16 weight", m: 1, n: 67, k: 45, bType: "f16", b: "t" },
    { name: "f16 and bf16 operands", m: 37, n: 67, k: 45, aType: "f16", bType: "bf16", a: "t" },
  ];
  for (const row of rows) {
    it(row.name, async () => {
      await check(row);
    });
  }
});

describe("cpu matmul of many rows and a deep k", () => {
  it("gives each row what it gives a few alone, in tiles of fewer rows", async () => {
    const [m, n, k] = [530, 264, 4096];
    const a = view(0, m, k, [], "n", [], 0);
    const b = view(1, k, n, [], "n", [], 0);
    const make = new ExprMakers();
    const of = (from: number, rows: number, out: number): MatmulKernel => {
      const index = make.add(make.mul(make.variable(0, rows), make.int(n)), make.variable(1, n));
      const value = make.binary("mul", make.accumulator("f32", 0), make.constant("f32", 2));
      const epilogue = { outer: [rows], inner: n, stores: [{ scope: "element", slot: out + 1, index, value }] } as const;
      const start = { ...a.view, offset: from * k };
      return { kind: "matmul", batch: [], m: rows, n, k, a: start, b: b.view, out, epilogue };
    };
    const some = [0, 497, 505, 520].map((from) => ({ from, rows: 10 }));
    const zeros = (count: number): TestSlot => ({ dtype: "f32", values: new Array<number>(count).fill(0) });
    const slots: readonly TestSlot[] = [
      { dtype: "f32", values: values(m * k, 1, "f32") },
      { dtype: "f32", values: values(k * n, 2, "f32") },
      ...[zeros(m * n), zeros(m * n)],
      ...some.flatMap(({ rows }) => [zeros(rows * n), zeros(rows * n)]),
    ];
    const kernels = [of(0, m, 2), ...some.map(({ from, rows }, i) => of(from, rows, 4 + 2 * i))];
    for (const [, backend] of variants) {
      if (!backend) throw new Error("no backend of two threads");
      const results = await runKernels(backend, kernels, slots);
      for (const [i, { from, rows }] of some.entries()) {
        for (const place of [0, 1]) {
          expect(results[4 + 2 * i + place]).toEqual(results[2 + place]?.slice(from * n, (from + rows) * n));
          expect(results[4 + 2 * i + place]?.some((x) => x !== 0)).toBe(true);
        }
      }
    }
  });
});

describe("sums of products against float64", () => {
  interface Term {
    readonly k: number;
    readonly a: "n" | "t" | "s";
    readonly b: "n" | "t" | "s";
    readonly factor?: number;
    readonly bType?: "f32" | "bf16";
  }
  const rows: readonly { readonly name: string; readonly m: number; readonly n: number; readonly terms: readonly Term[] }[] = [
    {
      name: "a weight and a low-rank pair",
      m: 37,
      n: 67,
      terms: [
        { k: 45, a: "n", b: "t" },
        { k: 8, a: "n", b: "t", factor: 2 },
      ],
    },
    {
      name: "every layout and a factor",
      m: 133,
      n: 277,
      terms: [
        { k: 300, a: "n", b: "n" },
        { k: 5, a: "t", b: "n", factor: -0.5 },
        { k: 9, a: "s", b: "s", factor: 3 },
        { k: 1, a: "n", b: "t" },
      ],
    },
    {
      name: "a bf16 weight",
      m: 5,
      n: 9,
      terms: [
        { k: 17, a: "n", b: "n", bType: "bf16" },
        { k: 3, a: "n", b: "t", factor: 0.25, bType: "bf16" },
      ],
    },
    {
      name: "operands packed in parts",
      m: 6,
      n: 530,
      terms: [
        { k: 2100, a: "n", b: "n" },
        { k: 2500, a: "t", b: "n" },
        { k: 8, a: "n", b: "n" },
      ],
    },
  ];
  for (const { name, m, n, terms } of rows) {
    it(name, async () => {
      const slots: TestSlot[] = [];
      const slot = (count: number, dtype: "f32" | "bf16"): number => slots.push({ dtype, values: values(count, slots.length, dtype) }) - 1;
      const [first, ...plus] = terms.map(({ k, factor = 1, bType = "f32", ...layout }) => {
        const a = view(slots.length, m, k, [], layout.a, []);
        slot(a.count, "f32");
        const b = view(slots.length, k, n, [], layout.b, []);
        slot(b.count, bType);
        return { k, a: a.view, b: b.view, factor };
      });
      if (!first) throw new Error("no terms");
      const out = slot(m * n, "f32");
      const twice = slot(m * n, "f32");
      const make = new ExprMakers();
      const index = make.add(make.mul(make.variable(0, m), make.int(n)), make.variable(1, n));
      const value = make.binary("mul", make.accumulator("f32", 0), make.constant("f32", 2));
      const kernel: MatmulKernel = { kind: "matmul", batch: [], m, n, ...first, plus, out };
      const bent: MatmulKernel = {
        ...kernel,
        epilogue: { outer: [m], inner: n, stores: [{ scope: "element", slot: twice, index, value }] },
      };
      const want = new Array<number>(m * n).fill(0);
      const size = new Array<number>(m * n).fill(0);
      for (const { factor, ...product } of [first, ...plus]) {
        const alone: MatmulKernel = { kind: "matmul", batch: [], m, n, ...product, out };
        const exact = reference(alone, slots[asView(product.a).slot]?.values ?? [], slots[asView(product.b).slot]?.values ?? []);
        for (const i of want.keys()) {
          want[i] = (want[i] ?? 0) + factor * (exact.out[i] ?? 0);
          size[i] = (size[i] ?? 0) + Math.abs(factor) * (exact.size[i] ?? 0);
        }
      }
      // The group holds the sum a second time, so that steps which are several themselves stand side by side.
      const again: MatmulKernel = { ...kernel, out: slot(m * n, "f32") };
      const group: GroupKernel = { kind: "group", members: [bent, again] };
      for (const backends of variants) {
        const [actual = [], ...others] = await Promise.all(backends.map((backend) => runKernels(backend, [group], slots)));
        for (const other of others) expectSameLists(other, actual);
        for (const [i, exact] of want.entries()) {
          const tolerance = 4 * 2 ** -24 * (size[i] ?? 0) + 1e-30;
          const got = actual[out]?.[i] ?? Number.NaN;
          if (!(Math.abs(got - exact) <= tolerance)) throw new Error(`element ${i}: ${got} instead of ${exact}`);
        }
        expectSameNumbers(actual[twice] ?? [], actual[out]?.map((x) => 2 * x) ?? []);
        expectSameNumbers(actual[again.out] ?? [], actual[out] ?? []);
      }
    });
  }
});
