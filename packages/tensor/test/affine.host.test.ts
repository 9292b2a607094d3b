import { expect, test } from "vitest";
import { affine } from "../src/kernels/affine.js";
import { type Expr, ExprMakers } from "../src/kernels/expr.js";
import { fractionBits, fractionSteps } from "../src/kernels/wasm/bytes.js";

const make = new ExprMakers();
const [block, lane] = [make.variable(0, 5), make.variable(1, 4)];
/** What differs from lane to lane, and what is the same in all: x, and d and m. */
const [x, d, m] = [make.load("f32", 0, lane), make.load("f32", 1, block), make.load("f32", 2, block)];
const values = [7, 0.5, 3];
const number = (value: number): Expr => make.constant("f32", value);
const [mul, add, sub] = (["mul", "add", "sub"] as const).map((kind) => (a: Expr, b: Expr) => make.binary(kind, a, b)) as [
  (a: Expr, b: Expr) => Expr,
  (a: Expr, b: Expr) => Expr,
  (a: Expr, b: Expr) => Expr,
];

function evaluated(expr: Expr): number {
  if (expr.op === "const") return expr.value;
  if (expr.op === "load") return values[expr.slot] ?? Number.NaN;
  if (expr.op !== "binary") throw new Error(`no value of ${expr.op}`);
  const [a, b] = [evaluated(expr.a), evaluated(expr.b)];
  return expr.kind === "mul" ? a * b : expr.kind === "add" ? a + b : a - b;
}

const cases: Record<string, { readonly value: Expr; readonly rest: Expr; readonly hasShift: boolean }> = {
  "(x − 8) · d leaves x": { value: mul(sub(x, number(8)), d), rest: x, hasShift: false },
  "d · (x + 2) · 3 leaves x": { value: mul(mul(d, add(x, number(2))), number(3)), rest: x, hasShift: false },
  "x · d + m leaves x": { value: add(mul(x, d), m), rest: x, hasShift: true },
  "(x · d − m) · d + 1 leaves x": { value: add(mul(sub(mul(x, d), m), d), number(1)), rest: x, hasShift: true },
  "x · x has nothing to take out": { value: mul(x, x), rest: mul(x, x), hasShift: false },
  "m − x · d stays whole": { value: sub(m, mul(x, d)), rest: sub(m, mul(x, d)), hasShift: false },
};
for (const [name, { value, rest, hasShift }] of Object.entries(cases)) {
  test(name, () => {
    const found = affine(make, value, lane);
    expect(found.rest).toBe(rest);
    expect(found.shift !== null).toBe(hasShift);
    const shift = found.shift ? evaluated(found.shift) : 0;
    expect((found.factor ? evaluated(found.factor) : 1) * (evaluated(found.rest) + found.offset) + shift).toBe(evaluated(value));
  });
}

test("fractions of integers have the bytes that interleaving makes, exactly", () => {
  for (let bits = fractionBits.low; bits <= fractionBits.high; bits++) {
    const top = ((2 ** bits - 1) << (6 - bits)) & 255;
    for (let q = 0; q < 2 ** bits; q++) {
      const second = q << (6 - bits);
      const bytes = new Uint8Array([second, top, second, top]);
      const { start, step } = fractionSteps(bits);
      expect(Math.fround(Math.fround(q * Math.fround(step)) + Math.fround(start))).toBe(new Float32Array(bytes.buffer)[0]);
    }
  }
});
