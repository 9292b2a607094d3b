import { expectSameLists } from "test-support";
import { afterAll, test } from "vitest";
import { createCpuBackend } from "../src/backends/cpu/backend.js";
import { nodeEnvironment } from "../src/backends/cpu/node.js";
import { epilogueLoop } from "../src/kernels/epilogue.js";
import { ExprMakers, type Index } from "../src/kernels/expr.js";
import type { Epilogue, MatmulKernel } from "../src/kernels/kernel.js";
import { runKernels, type TestSlot } from "./cpu-plan.js";

const environment = nodeEnvironment();
const backends = [1, 2, 3].map((threadCount) => createCpuBackend({ environment, threadCount, soloNanoseconds: 0 }));
afterAll(() => {
  for (const backend of backends) backend.dispose();
});

const values = (count: number, seed: number): number[] => Array.from({ length: count }, (_, i) => Math.fround(Math.sin(i * 1.3 + seed)));

/** tanh(product + bias) · residual, with the residual stored transposed, and only in the columns from the third on; 2 · product beside it. */
function made(batch: number, m: number, n: number, k: number, keepsProduct: boolean): { kernel: MatmulKernel; slots: TestSlot[] } {
  const make = new ExprMakers();
  const rows = batch * m;
  const outer = batch > 1 ? [batch, m] : [m];
  const row = outer.reduce<Index>((at, size, axis) => make.add(make.mul(at, make.int(size)), make.variable(axis, size)), make.int(0));
  const column = make.variable(outer.length, n);
  const place = make.add(make.mul(row, make.int(n)), column);
  const [a, b, bias, residual, out, twice, result] = [0, 1, 2, 3, 4, 5, 6];
  const product = make.accumulator("f32", 0);
  const bent = make.unary("tanh", make.binary("add", product, make.load("f32", bias, column)));
  const other = make.load("f32", residual, make.add(make.mul(column, make.int(rows)), row));
  const value = make.select(make.binary("lt", column, make.int(2)), product, make.binary("mul", bent, other));
  const epilogue: Epilogue = {
    outer,
    inner: n,
    stores: [
      { scope: "element", slot: keepsProduct ? result : out, index: place, value },
      { scope: "element", slot: twice, index: place, value: make.binary("add", product, product) },
    ],
  };
  const view = (slot: number, count: number, stride: number) =>
    ({ slot, offset: 0, batchStrides: batch > 1 ? [count * stride] : [], rowStride: stride, columnStride: 1 }) as const;
  return {
    kernel: {
      kind: "matmul",
      batch: batch > 1 ? [batch] : [],
      m,
      n,
      k,
      a: view(a, m, k),
      b: view(b, k, n),
      out,
      epilogue,
    },
    slots: [rows * k, batch * k * n, n, rows * n, rows * n, rows * n, rows * n].map((count, i) => ({
      dtype: "f32",
      values: values(count, i),
    })),
  };
}

const shapes: readonly (readonly [batch: number, m: number, n: number, k: number])[] = [
  [1, 1, 1, 1],
  [1, 3, 50, 7],
  [2, 2, 700, 5],
  [1, 67, 31, 13],
  [3, 65, 37, 9],
  [1, 130, 300, 270],
  // b is packed in parts, of columns and of matrices.
  [1, 9, 1030, 2100],
  [3, 8, 1030, 900],
  [1, 5, 6, 0],
  // Few rows, the depth in parts.
  [1, 1, 515, 136],
  [1, 3, 1030, 72],
];

for (const shape of shapes) {
  for (const keepsProduct of [true, false]) {
    test(`an epilogue of ${shape.join(" x ")} = a loop after the product${keepsProduct ? ", which is kept" : ""}, for 1, 2 and 3 threads`, async () => {
      const { kernel, slots } = made(...shape, keepsProduct);
      const { epilogue, ...plain } = kernel;
      const [first] = backends;
      if (!first || !epilogue) throw new Error("nothing to test");
      const expected = await runKernels(first, [plain, epilogueLoop(kernel, epilogue)], slots);
      for (const backend of backends) expectSameLists(await runKernels(backend, [kernel], slots), expected);
    });
  }
}
