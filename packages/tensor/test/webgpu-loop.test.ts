import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { WebgpuBackend } from "../src/backends/webgpu/index.js";
import { ExprMakers } from "../src/kernels/expr.js";
import type { LoopKernel } from "../src/kernels/kernel.js";
import { readsOf, writesOf } from "../src/kernels/slots.js";
import { chooseLoopVariant, type LoopVariant, printLoop } from "../src/kernels/wgsl/loop.js";
import { boundPlan, runKernels, type TestSlot } from "./cpu-plan.js";
import { interpret } from "./interpret.js";
import { compareLoop, randomLoop } from "./random-loop.js";
import { hasWebgpu, openWebgpu } from "./webgpu-device.js";
import { runProgram } from "./webgpu-program.js";

/** Slots that each need a binding: here all are buffers of their own, which cannot share one. */
function slotCount(kernel: LoopKernel): number {
  return new Set([...readsOf(kernel), ...writesOf(kernel)]).size;
}

describe.skipIf(!hasWebgpu())("printed WGSL loop kernels", () => {
  let backend: WebgpuBackend;
  beforeAll(async () => {
    backend = await openWebgpu();
  });
  afterAll(() => backend?.dispose());

  it("equal the scalar interpreter on random kernels", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 2 ** 32 - 1 }), async (seed) => {
        const made = randomLoop(seed);
        if (slotCount(made.kernel) > backend.target.maxBindings) return;
        compareLoop(made, await runKernels(backend, [made.kernel], made.slots));
      }),
      { numRuns: 80 },
    );
  });

  const variants: Record<string, (kernel: LoopKernel, slots: readonly TestSlot[]) => LoopVariant> = {
    "one element at a time, a thread a row": () => ({ vectorAxis: -1, rowThreads: 64, innerThreads: 1 }),
    "a workgroup a row": () => ({ vectorAxis: -1, rowThreads: 1, innerThreads: 64 }),
    "32 rows and 8 threads each": () => ({ vectorAxis: -1, rowThreads: 32, innerThreads: 8 }),
    "the chosen vector axis, 16 threads a row": (kernel, slots) => ({
      vectorAxis: chooseLoopVariant(kernel, boundPlan([kernel], slots).slots, backend.target).vectorAxis,
      rowThreads: 4,
      innerThreads: 16,
    }),
  };
  for (const [name, variant] of Object.entries(variants)) {
    it(`equal the scalar interpreter with ${name}`, async () => {
      await fc.assert(
        fc.asyncProperty(fc.integer({ min: 0, max: 2 ** 32 - 1 }), async (seed) => {
          const made = randomLoop(seed);
          if (slotCount(made.kernel) > backend.target.maxBindings) return;
          const isLoop = made.kernel.reductions.length > 0;
          const chosen = variant(made.kernel, made.slots);
          const program = printLoop(
            made.kernel,
            boundPlan([made.kernel], made.slots).slots,
            "loop",
            backend.target,
            isLoop ? chosen : { ...chosen, innerThreads: 1 },
          );
          compareLoop(made, await runProgram(backend.device, program, made.slots));
        }),
        { numRuns: 30 },
      );
    });
  }

  const make = new ExprMakers();
  const f = (value: number) => make.constant("f32", value);

  it("take more than 65,535 workgroups", async () => {
    const count = 65_535 * 256 + 77;
    const i = make.variable(0, count);
    const kernel: LoopKernel = {
      kind: "loop",
      outer: [count],
      inner: 1,
      reductions: [],
      stores: [{ scope: "element", slot: 0, index: i, value: make.cast("u32", i) }],
    };
    const plan = boundPlan([kernel], [{ dtype: "u32", values: [] }]);
    const executable = backend.prepare({
      ...plan,
      slots: [{ kind: "bound", dtype: "u32", elementCount: count, bytes: count * 4, binding: 0 }],
    });
    const buffer = backend.allocate(count * 4);
    backend.run(executable, [buffer]);
    for (const at of [0, 65_535 * 64, 65_535 * 256 - 1, 65_535 * 256 + 70]) {
      const bytes = await backend.read(buffer, 24, at * 4);
      expect(Array.from(new Uint32Array(bytes.buffer, bytes.byteOffset, 6))).toEqual([at, at + 1, at + 2, at + 3, at + 4, at + 5]);
    }
    backend.free(buffer);
    executable.dispose();
  });

  const inputs = [
    0,
    -0,
    1,
    -1,
    0.5,
    1e-3,
    -1e-3,
    80,
    -80,
    1e-20,
    1e30,
    -1e30,
    30,
    -30,
    Math.PI,
    1e4,
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
    Number.NaN,
  ];
  const accuracy = { exp: 4e-7, log: 4e-7, sqrt: 2e-7, sin: 1e-6, cos: 1e-6, tanh: 4e-7, erf: 6e-7, floor: 0 } as const;
  for (const [kind, tolerance] of Object.entries(accuracy) as [keyof typeof accuracy, number][]) {
    it(`${kind} is right to ${tolerance}, at the ends of its range too`, async () => {
      const random = Array.from({ length: 1021 }, (_, i) => (i - 500) * 0.0317);
      const values = [...inputs.filter((x) => !(kind === "sin" || kind === "cos") || Math.abs(x) < 1e6), ...random].map(Math.fround);
      const kernel: LoopKernel = {
        kind: "loop",
        outer: [values.length],
        inner: 1,
        reductions: [],
        stores: [
          {
            scope: "element",
            slot: 1,
            index: make.variable(0, values.length),
            value: make.unary(kind, make.load("f32", 0, make.variable(0, values.length))),
          },
        ],
      };
      const slots: TestSlot[] = [
        { dtype: "f32", values },
        { dtype: "f32", values: values.map(() => 0) },
      ];
      const expected = new Map(slots.map((slot, i) => [i, [...slot.values]]));
      interpret(kernel, expected);
      const [, got = []] = await runKernels(backend, [kernel], slots);
      for (const [i, x] of values.entries()) {
        const want = Math.fround(expected.get(1)?.[i] ?? 0);
        const y = got[i] ?? Number.NaN;
        const isAbsolute = kind === "sin" || kind === "cos";
        const isSame = Object.is(want, y) || want === y || Math.abs(want - y) <= tolerance * (isAbsolute ? 1 : Math.abs(want)) + 1.2e-38;
        expect(isSame, `${kind}(${x}) = ${y} instead of ${want}`).toBe(true);
      }
    });
  }

  it("keep C's rules for pow, fmod, integer division and NaN in max", async () => {
    const pairs = [
      [2, 10],
      [-2, 3],
      [-2, 2],
      [-8, 1 / 3],
      [0, 0],
      [0, -1],
      [9, 0.5],
      [1.0001, 30000],
      [7, 7],
      [-7.5, 2],
      [5.3, -2],
      [1e30, 7],
      [0.1, 1e-3],
      [Number.NaN, 1],
      [1, Number.NaN],
      [3, 0],
    ];
    const [a, b] = [pairs.map(([x = 0]) => Math.fround(x)), pairs.map(([, y = 0]) => Math.fround(y))];
    const at = make.variable(0, pairs.length);
    const [x, y] = [make.load("f32", 0, at), make.load("f32", 1, at)];
    const kinds = ["pow", "mod", "max", "min"] as const;
    const integers = ["div", "mod"] as const;
    const [p, q] = [make.cast("i32", x), make.cast("i32", y)];
    const kernel: LoopKernel = {
      kind: "loop",
      outer: [pairs.length],
      inner: 1,
      reductions: [],
      stores: [
        ...kinds.map((kind, k) => ({ scope: "element" as const, slot: 2 + k, index: at, value: make.binary(kind, x, y) })),
        ...integers.map((kind, k) => ({ scope: "element" as const, slot: 6 + k, index: at, value: make.binary(kind, p, q) })),
      ],
    };
    const zeros = pairs.map(() => 0);
    const slots: TestSlot[] = [
      { dtype: "f32", values: a },
      { dtype: "f32", values: b },
      ...kinds.map(() => ({ dtype: "f32" as const, values: zeros })),
      ...integers.map(() => ({ dtype: "i32" as const, values: zeros })),
    ];
    const expected = new Map(slots.map((slot, i) => [i, [...slot.values]]));
    interpret(kernel, expected);
    const got = await runKernels(backend, [kernel], slots);
    for (let slot = 2; slot < 8; slot++) {
      for (const [i, want] of (expected.get(slot) ?? []).entries()) {
        const value = got[slot]?.[i] ?? Number.NaN;
        const isSame = Object.is(want, value) || Math.fround(want) === value || Math.abs(want - value) <= 3e-5 * Math.abs(want);
        expect(isSame, `slot ${slot} of (${a[i]}, ${b[i]}): ${value} instead of ${want}`).toBe(true);
      }
    }
  });

  it("accept constants that WGSL cannot write: infinities, NaN, expressions of constants", async () => {
    const at = make.variable(0, 5);
    const values = [
      f(Number.POSITIVE_INFINITY),
      f(Number.NEGATIVE_INFINITY),
      f(Number.NaN),
      make.binary("mul", f(3e38), f(10)),
      make.unary("exp", f(1000)),
      make.binary("div", f(1), f(0)),
      make.cast("f32", make.int(-2147483648)),
      f(1e-40),
    ];
    const kernel: LoopKernel = {
      kind: "loop",
      outer: [5],
      inner: 1,
      reductions: [],
      stores: values.map((value, slot) => ({ scope: "element", slot, index: at, value })),
    };
    const got = await runKernels(
      backend,
      [kernel],
      values.map(() => ({ dtype: "f32", values: [0, 0, 0, 0, 0] })),
    );
    const infinity = Number.POSITIVE_INFINITY;
    const wanted = [infinity, -infinity, Number.NaN, infinity, infinity, infinity, -2147483648];
    for (const [i, want] of wanted.entries()) expect(got[i]).toEqual([want, want, want, want, want]);
  });

  it("narrow to f16 and bf16 with the same bits as toF16Bits and toBf16Bits, and widen all 65,536 halves", async () => {
    const halves = Array.from({ length: 65_536 }, (_, i) => i);
    const bytes = new Uint8Array(Uint16Array.from(halves).buffer);
    for (const dtype of ["f16", "bf16"] as const) {
      const at = make.variable(0, 65_536);
      const kernel: LoopKernel = {
        kind: "loop",
        outer: [65_536],
        inner: 1,
        reductions: [],
        stores: [
          { scope: "element", slot: 1, index: at, value: make.load("f32", 0, at) },
          { scope: "element", slot: 2, index: at, value: make.load("f32", 0, at) },
        ],
      };
      const slot = (type: "f32" | "f16" | "bf16", binding: number, size: number) =>
        ({ kind: "bound", dtype: type, elementCount: 65_536, bytes: 65_536 * size, binding }) as const;
      const plan = {
        slots: [slot(dtype, 0, 2), slot("f32", 1, 4), slot(dtype, 2, 2)],
        kernels: [kernel],
        names: ["widen"],
        bindingCount: 3,
        arenaBytes: 0,
      };
      const buffers = [2, 4, 2].map((size) => backend.allocate(65_536 * size));
      const [from, wide, again] = buffers;
      if (!from || !wide || !again) throw new Error("unreachable");
      backend.write(from, bytes);
      backend.run(backend.prepare(plan), buffers);
      const { decode } = await import("../src/tensor/dtype.js");
      const want = decode(bytes, dtype);
      const got = new Float32Array((await backend.read(wide, 65_536 * 4)).buffer);
      for (const i of halves)
        if (!Object.is(want[i], got[i]) && !(Number.isNaN(want[i]) && Number.isNaN(got[i]))) expect(got[i], `half ${i}`).toBe(want[i]);
      const back = new Uint16Array((await backend.read(again, 65_536 * 2)).buffer);
      for (const i of halves) if (!Number.isNaN(want[i])) expect(back[i]).toBe(i);
      for (const buffer of buffers) backend.free(buffer);
    }
  });
});
