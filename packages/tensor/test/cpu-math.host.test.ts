import { afterAll, describe, expect, it } from "vitest";
import { createCpuBackend } from "../src/backends/cpu/backend.js";
import { nodeEnvironment } from "../src/backends/cpu/node.js";
import { type Expr, ExprMakers, type Index, type UnaryKind } from "../src/kernels/expr.js";
import type { LoopKernel } from "../src/kernels/kernel.js";
import { runKernels } from "./cpu-plan.js";
import { erf, philox } from "./interpret.js";

const environment = nodeEnvironment();
const backend = createCpuBackend({ environment });
/** The same without fused multiply-add, where the runtime has it. */
const plain = createCpuBackend({ environment: { ...environment, hasRelaxedSimd: false } });
afterAll(() => {
  backend.dispose();
  plain.dispose();
});

function elementwise(count: number, value: (makers: ExprMakers, index: Index) => Expr, out: number): LoopKernel {
  const makers = new ExprMakers();
  const index = makers.variable(0, count);
  return {
    kind: "loop",
    outer: [],
    inner: count,
    reductions: [],
    stores: [{ scope: "element", slot: out, index, value: value(makers, index) }],
  };
}

async function apply(kind: UnaryKind, x: readonly number[], on = backend): Promise<number[]> {
  const kernel = elementwise(x.length, (makers, index) => makers.unary(kind, makers.load("f32", 0, index)), 1);
  const [, out = []] = await runKernels(
    on,
    [kernel],
    [
      { dtype: "f32", values: x },
      { dtype: "f32", values: x.map(() => 0) },
    ],
  );
  return out;
}

/** Distance between f32 neighbours at `x`. */
function ulp(x: number): number {
  const exponent = Math.max(-126, Math.floor(Math.log2(Math.abs(x) || 2 ** -149)));
  return 2 ** (exponent - 23);
}

/** f32 numbers between two limits, evenly or by exponent, and their neighbours to awkward places. */
function samples(low: number, high: number): number[] {
  const x: number[] = [];
  for (let i = 0; i <= 60000; i++) x.push(Math.fround(low + ((high - low) * i) / 60000));
  for (let e = -149; e < 128; e += 0.05) {
    for (const value of [Math.fround(2 ** e * 1.37), -Math.fround(2 ** e * 1.37)]) if (value >= low && value <= high) x.push(value);
  }
  return x;
}

const special = [0, -0, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN];

const rows: readonly { kind: UnaryKind; exact: (x: number) => number; low: number; high: number; ulps: number }[] = [
  { kind: "exp", exact: Math.exp, low: -103, high: 88.7, ulps: 1.2 },
  { kind: "log", exact: Math.log, low: 1e-45, high: 3.4e38, ulps: 1.1 },
  { kind: "log", exact: Math.log, low: 1e-45, high: 4, ulps: 1.1 },
  { kind: "tanh", exact: Math.tanh, low: -12, high: 12, ulps: 2 },
  { kind: "erf", exact: erf, low: -5, high: 5, ulps: 2 },
  { kind: "sin", exact: Math.sin, low: -1000, high: 1000, ulps: 0.51 },
  { kind: "cos", exact: Math.cos, low: -1000, high: 1000, ulps: 0.51 },
  { kind: "sin", exact: Math.sin, low: -3.4e38, high: 3.4e38, ulps: 0.51 },
  { kind: "cos", exact: Math.cos, low: -3.4e38, high: 3.4e38, ulps: 0.51 },
  { kind: "sqrt", exact: Math.sqrt, low: 0, high: 3.4e38, ulps: 0.51 },
];

describe("elementary functions of the cpu backend", () => {
  for (const { kind, exact, low, high, ulps } of rows) {
    it(`${kind} is within ${ulps} ulp between ${low} and ${high}`, async () => {
      const x = samples(low, high);
      const want = x.map(exact);
      for (const on of [backend, plain]) {
        const got = await apply(kind, x, on);
        let worst = { error: 0, x: 0 };
        for (const [i, value] of x.entries()) {
          const error = Math.abs((got[i] ?? Number.NaN) - (want[i] ?? 0)) / ulp(want[i] ?? 0);
          if (!(error <= worst.error)) worst = { error, x: value };
        }
        expect(worst.error, `at ${worst.x}`).toBeLessThanOrEqual(ulps);
      }
    });

    it(`${kind} of zeros, infinities, NaN and far-out numbers is what Math gives`, async () => {
      const x = [...special, 1000, -1000, 3e38, -3e38, 1e-40, -1e-40].map(Math.fround);
      const got = await apply(kind, x);
      for (const [i, value] of x.entries()) {
        const want = Math.fround(exact(value));
        const y = got[i] ?? 0;
        const isSame = Object.is(y, want) || Math.abs(y - want) <= 2 * ulp(want);
        if (!isSame) throw new Error(`${kind}(${value}) = ${y} instead of ${want}`);
      }
    });
  }

  it("exp, tanh and erf of a NaN with any bits are NaN", async () => {
    const bits = [0x7fc00001, 0x7f800001, -1, 0x7fffffff, 0x7fc00000, 0x7fc00155];
    for (const kind of ["exp", "tanh", "erf"] as const) {
      const kernel = elementwise(bits.length, (makers, index) => makers.unary(kind, makers.load("f32", 0, index)), 1);
      // A slot of integers holds the bits as they are.
      const slots = [{ dtype: "i32", values: bits } as const, { dtype: "f32", values: bits.map(() => 0) } as const];
      const [, got] = await runKernels(backend, [kernel], slots);
      expect(got, kind).toEqual(bits.map(() => Number.NaN));
    }
  });

  it("min, max and select against constants, neg and abs are what Math gives, bit for bit", async () => {
    const x = [...special, 1.5, -1.5, 3, -3, 1e-40, -1e-40].map(Math.fround);
    const constants = [2, -2, 0, -0, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    const float = (makers: ExprMakers, value: number) => makers.constant("f32", value);
    const unary = { neg: (value: number) => -value, abs: Math.abs } as const;
    for (const kind of ["neg", "abs"] as const) expect(await apply(kind, x), kind).toEqual(x.map(unary[kind]));
    const on = async (value: Parameters<typeof elementwise>[1]): Promise<number[]> => {
      const slots = [x, x.map(() => 0)].map((values) => ({ dtype: "f32", values }) as const);
      return (await runKernels(backend, [elementwise(x.length, value, 1)], slots))[1] ?? [];
    };
    for (const constant of constants) {
      for (const kind of ["min", "max"] as const) {
        const want = x.map((value) => Math[kind](value, constant));
        const right = await on((makers, index) => makers.binary(kind, makers.load("f32", 0, index), float(makers, constant)));
        const left = await on((makers, index) => makers.binary(kind, float(makers, constant), makers.load("f32", 0, index)));
        expect(right, `${kind} with ${constant}`).toEqual(want);
        expect(left, `${kind} of ${constant} and it`).toEqual(want);
      }
      for (const isFirst of [true, false]) {
        const got = await on((makers, index) => {
          const value = makers.load("f32", 0, index);
          const [a, b] = isFirst ? [float(makers, constant), value] : [value, float(makers, constant)];
          return makers.select(makers.binary("lt", value, float(makers, 1)), a, b);
        });
        expect(got, `select, ${constant} ${isFirst ? "first" : "second"}`).toEqual(
          x.map((value) => (value < 1 === isFirst ? constant : value)),
        );
      }
    }
  });

  it("pow and mod are right to one rounding, and as C defines them at the edges", async () => {
    const bases = [...special, 1, -1, 2, -2, 0.5, 1.0001, 7.5, -3, 1e-40, 3e38, 0.9999999];
    const exponents = [...special, 1, -1, 2, 3, 0.5, -0.5, 7, 1e9, 127.5, -149, 3e38];
    const pairs = bases.flatMap((a) => exponents.map((b) => [Math.fround(a), Math.fround(b)] as const));
    for (const kind of ["pow", "mod"] as const) {
      const kernel = elementwise(
        pairs.length,
        (makers, index) => makers.binary(kind, makers.load("f32", 0, index), makers.load("f32", 1, index)),
        2,
      );
      const [, , got = []] = await runKernels(
        backend,
        [kernel],
        [
          { dtype: "f32", values: pairs.map(([a]) => a) },
          { dtype: "f32", values: pairs.map(([, b]) => b) },
          { dtype: "f32", values: pairs.map(() => 0) },
        ],
      );
      for (const [i, [a, b]] of pairs.entries()) {
        const isOne = a === 1 || (a === -1 && Math.abs(b) === Number.POSITIVE_INFINITY);
        const want = Math.fround(kind === "mod" ? a % b : isOne ? 1 : a ** b);
        const y = got[i] ?? 0;
        if (!Object.is(y, want) && !(Math.abs(y - want) <= ulp(want))) throw new Error(`${a} ${kind} ${b} = ${y} instead of ${want}`);
      }
    }
  });

  it("random gives Philox4x32-10's words", async () => {
    const count = 37;
    const kernel = elementwise(
      count,
      (makers, index) =>
        makers.random(
          makers.load("u32", 0, makers.int(0)),
          makers.load("u32", 0, makers.int(1)),
          makers.constant("u32", 5),
          makers.add(index, makers.int(3)),
        ),
      1,
    );
    const key = [0xdeadbeef, 0x12345678];
    const [, got = []] = await runKernels(
      backend,
      [kernel],
      [
        { dtype: "u32", values: key },
        { dtype: "u32", values: new Array<number>(count).fill(0) },
      ],
    );
    expect(got).toEqual(Array.from({ length: count }, (_, i) => philox(key[0] ?? 0, key[1] ?? 0, 5, i + 3)));
    // The known answer of the authors' own test vectors (counter 0, key 0).
    expect([0, 1, 2, 3].map((word) => philox(0, 0, 0, word))).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
  });
});
