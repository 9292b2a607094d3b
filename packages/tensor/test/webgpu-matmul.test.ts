// Slow: every variant of the kernel is compiled for every row.
import { inTurn, testBackend } from "test-support";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { WebgpuBackend } from "../src/backends/webgpu/index.js";
import type { MatmulKernel } from "../src/kernels/kernel.js";
import { type MatmulVariant, matmulVariants, printMatmul } from "../src/kernels/wgsl/matmul.js";
import { boundPlan } from "./cpu-plan.js";
import { product, type Row, reference, values, view } from "./matmul-cases.js";
import { hasWebgpu, openWebgpu } from "./webgpu-device.js";
import { runProgram } from "./webgpu-program.js";

const rows: readonly (Row & { readonly name: string })[] = [
  { name: "one product", m: 1, n: 1, k: 1 },
  { name: "k = 0 gives zeros", m: 3, n: 5, k: 0 },
  { name: "one row, a transposed weight", m: 1, n: 67, k: 13, b: "t" },
  { name: "one column", m: 37, n: 1, k: 31, a: "t" },
  { name: "operands with gaps", m: 5, n: 7, k: 9, a: "s", b: "s" },
  { name: "primes, both transposed", m: 31, n: 41, k: 29, a: "t", b: "t" },
  { name: "whole tiles", m: 64, n: 64, k: 16 },
  { name: "whole tiles of a transposed left operand", m: 64, n: 32, k: 20, a: "t" },
  { name: "vectors past the last tile, a transposed weight", m: 36, n: 44, k: 24, b: "t" },
  { name: "vectors past the last tile, both transposed", m: 36, n: 44, k: 27, a: "t", b: "t" },
  { name: "a low-rank projection down", m: 40, n: 8, k: 128, b: "t" },
  { name: "a low-rank projection up", m: 100, n: 68, k: 8, b: "t" },
  { name: "a low-rank gradient", m: 8, n: 72, k: 203, a: "t" },
  { name: "grouped queries", m: 17, n: 20, k: 8, batch: [2, 2, 3], repeats: { b: [2] }, b: "t" },
  { name: "one left operand for several", m: 20, n: 16, k: 33, batch: [2, 3], repeats: { a: [0] } },
  { name: "a bf16 weight", m: 37, n: 67, k: 45, bType: "bf16", b: "t" },
  { name: "f16 operands", m: 36, n: 68, k: 44, aType: "f16", bType: "f16", a: "t" },
];

describe.skipIf(!hasWebgpu())("each WGSL matmul variant against float64", () => {
  let backend: WebgpuBackend;
  beforeAll(async () => {
    backend = await openWebgpu();
  });
  afterAll(() => backend?.dispose());

  const sentence = (v: MatmulVariant): string =>
    `${v.tileRows}x${v.tileColumns} in ${v.threadRows}x${v.threadColumns} invocations, left operand ${v.left}${v.isTransposed ? ", transposed" : ""}`;

  async function check(row: Row, variant: MatmulVariant, offset: number): Promise<void> {
    const { m, n, k, batch = [], aType = "f32", bType = "f32" } = row;
    const a = view(0, m, k, batch, row.a ?? "n", row.repeats?.a ?? [], offset);
    const b = view(1, k, n, batch, row.b ?? "n", row.repeats?.b ?? [], offset);
    const kernel: MatmulKernel = { kind: "matmul", batch, m, n, k, a: a.view, b: b.view, out: 2 };
    const slots = [
      { dtype: aType, values: values(a.count, 1, aType) },
      { dtype: bType, values: values(b.count, 2, bType) },
      { dtype: "f32" as const, values: new Array<number>(product(batch) * m * n).fill(Number.NaN) },
    ];
    const { out, size } = reference(kernel, slots[0]?.values ?? [], slots[1]?.values ?? []);
    const program = printMatmul(kernel, boundPlan([kernel], slots).slots, sentence(variant), backend.target, variant);
    const got = (await runProgram(backend.device, program, slots))[2] ?? [];
    const wrong = out.findIndex((want, i) => {
      // An f32 sum of k terms errs by √k half units of the last place of its size, some few times over.
      const tolerance = 4 * 2 ** -24 * (size[i] ?? 0) + 1e-30;
      return !(Math.abs((got[i] ?? Number.NaN) - want) <= tolerance);
    });
    if (wrong >= 0) throw new Error(`${JSON.stringify(row)} from ${offset}, element ${wrong}: ${got[wrong]} instead of ${out[wrong]}`);
  }

  const isSlow = testBackend() === "lavapipe";
  /** What the adapter can be given and what a real GPU can, which a software one runs too. */
  const variants = (): MatmulVariant[] => {
    const own = matmulVariants(backend.target);
    const ofGpus = isSlow ? [] : matmulVariants({ ...backend.target, isSoftware: false });
    return [...own, ...ofGpus.filter((variant) => !own.some((other) => sentence(other) === sentence(variant)))];
  };

  for (const [j, row] of inTurn(rows, ({ name }) => name).entries()) {
    it(row.name, async () => {
      const tested = variants();
      expect(tested.length).toBeGreaterThanOrEqual(isSlow ? 3 : 24);
      for (const [i, variant] of tested.entries()) {
        // lavapipe compiles a large tile in half a second, so that each shape meets a third of the variants there.
        if (!isSlow || (i + j) % 3 === 0) await check(row, variant, (i + j) % 2 === 0 ? 4 : 3);
      }
    });
  }

  it("takes more than 65,535 workgroups", async () => {
    // A batch of scalars, each in a workgroup of its own.
    const row: Row = { m: 1, n: 1, k: 1, batch: [65_535 + 1300] };
    await check(row, matmulVariants(backend.target)[0] as MatmulVariant, 3);
  });
});
