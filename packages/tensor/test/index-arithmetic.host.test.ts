import fc from "fast-check";
import { expect, test } from "vitest";
import { ExprMakers, expressionsBelow, type Index, type IndexKind, strideOf } from "../src/kernels/expr.js";
import { substitute } from "../src/kernels/substitute.js";

const sizes = [3, 4, 6];

/** An index as its maker simplified it, and what it was written as. */
interface Written {
  readonly index: Index;
  readonly of: (at: readonly number[]) => number;
}

type Step = readonly [kind: IndexKind, a: number, b: number, constant: number];

const operations: Readonly<Record<IndexKind, (a: number, b: number) => number>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b + 0,
  // -0 is 0.
  div: (a, b) => Math.trunc(a / b) + 0,
  mod: (a, b) => (a % b) + 0,
  min: Math.min,
  max: Math.max,
};

const steps = fc.array(
  fc.tuple(
    fc.constantFrom(...(Object.keys(operations) as IndexKind[])),
    fc.nat(20),
    fc.nat(20),
    fc.constantFrom(1, 2, 3, 4, 6, 8, 12, -1, 0),
  ),
  { minLength: 1, maxLength: 9 },
);

/** Grows a pool of indices; products, quotients and remainders are by numbers, as the scheduler's are. */
function written(make: ExprMakers, program: readonly Step[]): Written[] {
  const pool: Written[] = sizes.map((size, axis) => ({ index: make.variable(axis, size), of: (at) => at[axis] ?? 0 }));
  for (const [kind, i, j, constant] of program) {
    const a = pool[i % pool.length] as Written;
    const divides = kind === "div" || kind === "mod";
    const isNumber = divides || kind === "mul" || j % 3 === 0;
    const number = divides ? Math.max(Math.abs(constant), 1) : constant;
    const b = isNumber ? { index: make.int(number), of: () => number } : (pool[j % pool.length] as Written);
    pool.push({ index: make.index(kind, a.index, b.index), of: (at) => operations[kind](a.of(at), b.of(at)) });
  }
  return pool;
}

const positions = Array.from({ length: 3 * 4 * 6 }, (_, i) => [Math.floor(i / 24), Math.floor(i / 6) % 4, i % 6]);

function evaluate(root: Index, at: readonly number[]): number {
  const values = new Map<unknown, number>();
  for (const expr of expressionsBelow([root])) {
    if (expr.op === "const") values.set(expr, expr.value);
    else if (expr.op === "variable") values.set(expr, at[expr.axis] ?? 0);
    else if (expr.op === "index") values.set(expr, operations[expr.kind](values.get(expr.a) ?? 0, values.get(expr.b) ?? 0));
    else throw new Error(expr.op);
  }
  return values.get(root) ?? Number.NaN;
}

test("an index is simplified to the same number everywhere, within its range, and moves by its stride", () => {
  fc.assert(
    fc.property(steps, (program) => {
      const { index, of } = written(new ExprMakers(), program).at(-1) as Written;
      const strides = sizes.map((_, axis) => strideOf(index, axis));
      for (const at of positions) {
        const value = of(at);
        expect(evaluate(index, at)).toBe(value);
        expect(value >= index.low && value <= index.high).toBe(true);
        for (const [axis, stride] of strides.entries()) {
          const next = at.map((position, i) => position + Number(i === axis));
          if (stride !== null && (next[axis] ?? 0) < (sizes[axis] ?? 0)) expect(of(next)).toBe(value + stride);
        }
      }
    }),
    { numRuns: 150, seed: 5 },
  );
});

test("within narrower bounds an index is the same number", () => {
  fc.assert(
    fc.property(steps, fc.nat(5), fc.nat(5), (program, from, to) => {
      const { index, of } = written(new ExprMakers(), program).at(-1) as Written;
      const [low, high] = [Math.min(from, to), Math.max(from, to)];
      const make = new ExprMakers(new Map([[2, { low, high }]]));
      const narrow = substitute(index, make, (axis, size) => make.variable(axis, size));
      for (const at of positions) {
        if ((at[2] ?? 0) < low || (at[2] ?? 0) > high) continue;
        expect(evaluate(narrow, at)).toBe(of(at));
        expect(of(at) >= narrow.low && of(at) <= narrow.high).toBe(true);
      }
    }),
    { numRuns: 100, seed: 6 },
  );
});

test("splitting what was merged leaves no division", () => {
  const make = new ExprMakers();
  const [i, j, k] = sizes.map((size, axis) => make.variable(axis, size)) as [Index, Index, Index];
  const merged = make.add(make.mul(make.add(make.mul(i, make.int(4)), j), make.int(6)), k);
  const by = (kind: "div" | "mod", x: Index, number: number): Index => make.index(kind, x, make.int(number));
  expect([by("div", merged, 24), by("mod", by("div", merged, 6), 4), by("mod", merged, 6)]).toEqual([i, j, k]);
  const flat = make.variable(3, 72);
  expect(make.add(make.mul(by("div", flat, 6), make.int(6)), by("mod", flat, 6))).toBe(flat);
});

test("what the user computes is not an index: it keeps its operations, and only constants fold", () => {
  const make = new ExprMakers();
  const position = make.variable(0, 50000);
  const product = make.binary("mul", position, make.int(50000));
  expect(make.binary("lt", product, make.int(0)).op).toBe("binary");
  expect(make.binary("div", product, make.int(50000)).op).toBe("binary");
  expect(make.binary("add", make.binary("add", product, make.int(2147483647)), make.int(1))).toMatchObject({ op: "binary", kind: "add" });
  expect(make.binary("mul", make.int(2147483647), make.int(2147483647))).toMatchObject({ op: "const", value: 1 });
  expect(make.binary("lt", position, make.int(50000))).toMatchObject({ op: "const", value: 1 });
  const given = make.given(product);
  expect([given.low, given.high]).toEqual([Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY]);
  expect(make.index("min", make.index("max", given, make.int(0)), make.int(9))).toMatchObject({ low: 0, high: 9 });
});
