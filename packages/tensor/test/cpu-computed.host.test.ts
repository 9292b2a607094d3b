import { afterAll, describe, expect, test } from "vitest";
import { createCpuBackend } from "../src/backends/cpu/backend.js";
import { once } from "../src/backends/cpu/computed.js";
import { nodeEnvironment } from "../src/backends/cpu/node.js";
import { type BytesInLanes, walkOf } from "../src/kernels/blocks.js";
import { type Expr, ExprMakers } from "../src/kernels/expr.js";
import type { LoadOperand, MatmulKernel, MatrixView, Plan } from "../src/kernels/kernel.js";
import { runKernels, type TestSlot } from "./cpu-plan.js";

const backend = createCpuBackend({ environment: nodeEnvironment(), threadCount: 2 });
afterAll(() => backend.dispose());

/** The outer product of slots 0 and 1: as large as it may be, little of it lies in memory. */
function outerProduct(rows: number, columns: number): LoadOperand {
  const make = new ExprMakers();
  const value = make.binary("mul", make.load("f32", 0, make.variable(0, rows)), make.load("f32", 1, make.variable(1, columns)));
  return { value, slots: [0, 1] };
}

const view = (slot: number, columns: number): MatrixView => ({ slot, offset: 0, batchStrides: [], rowStride: columns, columnStride: 1 });

/** A product over bound slots that are never filled, to be planned and not run. */
function planOf(kernel: MatmulKernel): Plan {
  const counts = [2 ** 21, 2 ** 21, kernel.m * kernel.k, kernel.k * kernel.n, kernel.m * kernel.n];
  const slots = counts.map(
    (elementCount, binding) => ({ kind: "bound", dtype: "f32", elementCount, bytes: elementCount * 4, binding }) as const,
  );
  return { slots, kernels: [kernel], names: ["product"], bindingCount: slots.length, arenaBytes: 0 };
}

const mebibyte = 2 ** 20;

describe("operands that are computed take at most 8 MiB of scratch memory", () => {
  const sizes = [
    { name: "a large one", m: 64, n: 8192, k: 8192 },
    { name: "one of very deep columns", m: 64, n: 64, k: 2 ** 20 },
    { name: "one of very long rows", m: 64, n: 2 ** 20, k: 64 },
    { name: "one of many rows and few columns", m: 2 ** 18, n: 16, k: 256 },
    { name: "one that meets a single row", m: 1, n: 8192, k: 8192 },
  ];
  for (const { name, m, n, k } of sizes) {
    const [a, b] = [view(2, k), view(3, n)];
    const [left, right] = [outerProduct(m, k), outerProduct(k, n)];
    for (const [side, operands] of Object.entries({ right: { a, b: right }, left: { a: left, b }, "either side": { a: left, b: right } })) {
      test(`${name}, ${side}`, () => {
        const kernel: MatmulKernel = { kind: "matmul", batch: [], m, n, k, ...operands, out: 4 };
        // Panels of an operand that lies in memory are no part of it; arguments are.
        const ofView = operands.b === b ? 8 * mebibyte : 0;
        expect((backend.workspaceBytes?.(planOf(kernel)) ?? Number.NaN) - ofView).toBeLessThanOrEqual(8 * mebibyte + 65536);
      });
    }
  }
});

test("a computed operand whose columns are too deep to be packed is multiplied in parts, with an epilogue", async () => {
  const [m, n, k] = [5, 8, 300_000];
  const numbers = (count: number, seed: number): number[] => Array.from({ length: count }, (_, i) => Math.fround(Math.sin(i * 1.3 + seed)));
  const [rows, columns, left] = [numbers(k, 1), numbers(n, 2), numbers(m * k, 3)];
  const make = new ExprMakers();
  const index = make.add(make.mul(make.variable(0, m), make.int(n)), make.variable(1, n));
  const value = make.binary("add", make.accumulator("f32", 0), make.constant("f32", 1));
  const kernel: MatmulKernel = {
    kind: "matmul",
    batch: [],
    m,
    n,
    k,
    a: view(2, k),
    b: outerProduct(k, n),
    out: 3,
    epilogue: { outer: [m], inner: n, stores: [{ scope: "element", slot: 3, index, value }] },
  };
  const slots: TestSlot[] = [rows, columns, left, new Array<number>(m * n).fill(0)].map((values) => ({ dtype: "f32", values }));
  const [, , , got = []] = await runKernels(backend, [kernel], slots);
  for (let i = 0; i < m; i++) {
    let sum = 0;
    for (let d = 0; d < k; d++) sum += (left[i * k + d] ?? 0) * (rows[d] ?? 0);
    // f32 sums of 300,000 terms below 1, whose errors grow with the root of their number within blocks.
    for (let j = 0; j < n; j++) expect(Math.abs((got[i * n + j] ?? Number.NaN) - (sum * (columns[j] ?? 0) + 1))).toBeLessThan(0.1);
  }
});

describe("how an operand in blocks is walked", () => {
  const [rows, columns, rowBytes] = [64, 512, 288];

  /** (d · code + m) of rows of `rowBytes` bytes, in which codes of two columns share a byte and every eighth group has its scale elsewhere. */
  function blocksOf(make: ExprMakers): Expr {
    const [row, column] = [make.variable(0, rows), make.variable(1, columns)];
    const start = make.mul(row, make.int(rowBytes));
    const byteAt = (offset: ReturnType<ExprMakers["int"]>): Expr => make.load("i32", 0, make.add(start, offset));
    const group = make.index("div", column, make.int(32));
    const scale = make.select(
      make.binary("lt", group, make.int(8)),
      byteAt(make.add(make.int(256), group)),
      make.binary("add", byteAt(make.add(make.int(264), group)), byteAt(make.int(287))),
    );
    const code = make.binary("and", byteAt(make.index("div", column, make.int(2))), make.int(15));
    return make.binary("mul", make.cast("f32", code), make.cast("f32", scale));
  }

  /** Counts what it is asked, which is something for each block that is tried. */
  const asked = { count: 0 };
  const noBytes: BytesInLanes = {
    loadsOf: () => {
      asked.count++;
      return null;
    },
    codeOf: () => null,
  };

  test("down its rows, which nothing divides, no block is tried, however many loads a number takes", () => {
    asked.count = 0;
    // Five loads a number, each of elements that lie rowBytes apart: 4 · 5 in place of 5 loads of neighbours.
    expect(walkOf(blocksOf(new ExprMakers()), 0, rows, noBytes)).toMatchObject({ blocks: { size: 16, step: 1, lanes: 16 } });
    expect(asked.count).toBe(0);
  });

  test("loads that may meet where rows overlap are counted block by block", () => {
    const make = new ExprMakers();
    const near = (offset: number): Expr => make.load("f32", 0, make.add(make.variable(0, rows), make.int(offset)));
    asked.count = 0;
    expect(walkOf(make.binary("add", near(0), near(4)), 0, rows, noBytes)?.cost).toBeLessThan(2);
    expect(asked.count).toBeGreaterThan(0);
  });

  test("what is found of one kernel's operand is known of an equal one's", () => {
    let found = 0;
    const find = (): number => ++found;
    const [first, second] = [blocksOf(new ExprMakers()), blocksOf(new ExprMakers())];
    expect(first).not.toBe(second);
    expect([once(first, "a test", find), once(second, "a test", find), once(second, "another", find)]).toEqual([1, 1, 2]);
  });
});
