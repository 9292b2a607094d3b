import { arange, type Device, device, realize, type Tensor, tensor } from "@lowrank/tensor";
import fc from "fast-check";
import { testBackend, testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";
import { blockWeight, unpackings } from "./computed-operands.js";
import { agree, type Build } from "./graphs.js";

let reference: Device;
let tested: Device;

beforeAll(async () => {
  reference = await device("reference");
  tested = await testDevice();
});

function matrix(rows: number, columns: number, dev: Device, seed = 0): Tensor {
  const values = Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i * 1.3 + seed));
  return tensor(values, { shape: [rows, columns], device: dev });
}

/** The same on both devices, relative to the sum of what is added up. */
async function same(build: (dev: Device) => Tensor, scale: number): Promise<void> {
  const [want, got] = await Promise.all([reference, tested].map((dev) => build(dev).data()));
  expect(got?.length).toBe(want?.length);
  for (const [i, value] of (want ?? []).entries()) {
    const error = Math.abs((got?.[i] ?? Number.NaN) - value);
    if (!(error <= scale * 1e-5)) throw new Error(`element ${i}: ${got?.[i]} instead of ${value}`);
  }
}

const everyShape = [
  { name: "one row", m: 1, n: 24, k: 64 },
  { name: "two rows, an odd number of columns", m: 2, n: 9, k: 64 },
  { name: "three rows, columns that fill no panel", m: 3, n: 13, k: 96 },
  { name: "many rows", m: 21, n: 40, k: 128 },
  { name: "many rows, columns that fill no panel", m: 9, n: 19, k: 32 },
];

/** Sizes at which the cpu takes a loop in parts, rows in fours, or more steps than it keeps values of. */
const largeShapes =
  testBackend() === "cpu"
    ? [
        { name: "one row, columns in fours", m: 1, n: 300, k: 256 },
        { name: "two rows, columns in fours", m: 2, n: 131, k: 128 },
        { name: "four rows, columns in fours", m: 4, n: 129, k: 256 },
        { name: "one row, seven blocks of columns", m: 1, n: 257, k: 224 },
        { name: "one row, very deep", m: 1, n: 2, k: 33_024 },
      ]
    : [];

/** Errors of sums grow with the root of their terms; numbers that are made fractions err some ten times as much as themselves. */
const sumOf = (terms: number): number => 3 * Math.sqrt(terms);

describe("a large weight in blocks of 4 bits", () => {
  for (const [way, unpack] of Object.entries(unpackings).filter((_, i) => i === 0 || i === 4)) {
    for (const { name, m, n, k } of largeShapes) {
      test(`${way}, forward, ${name} = the float64 reference`, () =>
        same((dev) => matrix(m, k, dev).matmul(unpack(blockWeight(n, k, dev)).transpose()), sumOf(k)));
      test(`${way}, for the input's gradient, ${name} = the float64 reference`, () =>
        same((dev) => matrix(m, n, dev).matmul(unpack(blockWeight(n, k, dev))), sumOf(n)));
    }
  }
});

/** A program is compiled for each, which takes a software adapter seconds. */
const shapes = testBackend() === "cpu" ? everyShape : everyShape.slice(2, 4);

describe("a weight in blocks of 4 bits", () => {
  for (const [way, unpack] of Object.entries(unpackings)) {
    for (const { name, m, n, k } of shapes) {
      test(`${way}, forward, ${name} = the float64 reference`, () =>
        same((dev) => matrix(m, k, dev).matmul(unpack(blockWeight(n, k, dev)).transpose()), k));
      test(`${way}, for the input's gradient, ${name} = the float64 reference`, () =>
        same((dev) => matrix(m, n, dev).matmul(unpack(blockWeight(n, k, dev))), n));
    }
  }
});

/** Products whose operands expand what lies in memory in other ways. */
const cases: Record<string, Build> = {
  "a left operand that is computed": (t) =>
    t([6, 1])
      .mul(arangeLike(t([1]), 12))
      .expand([6, 12])
      .matmul(t([12, 7])),
  "both operands computed": (t) =>
    t([1, 10])
      .expand([5, 10])
      .matmul(t([10, 1]).add(arangeLike(t([1]), 9))),
  "a computed operand of one matrix for a batch": (t) =>
    t([3, 6, 8]).matmul(
      t([1, 1, 9])
        .mul(t([1, 8, 1]))
        .expand([3, 8, 9]),
    ),
  "a computed operand that depends on one axis of a batch": (t) =>
    t([2, 3, 5, 8]).matmul(
      t([1, 3, 1, 16])
        .mul(t([1, 1, 8, 1]))
        .expand([2, 3, 8, 16]),
    ),
  "a computed left operand in a batch, with an epilogue": (t) =>
    t([3, 1, 6])
      .mul(t([1, 10, 1]))
      .matmul(t([3, 6, 8]))
      .add(t([8]))
      .tanh(),
  "a lower triangle of ones": (t) => {
    const at = arangeLike(t([1]), 12);
    return at
      .lessEqual(at.reshape([12, 1]))
      .cast("f32")
      .matmul(t([12, 5]));
  },
  "rows of a window that moves": (t) => {
    const x = t([40]).pad([[2, 2]]);
    const at = arangeLike(x, 5).reshape([5, 1]).add(arangeLike(x, 40)).cast("i32");
    return t([7, 5]).matmul(x.gather(at, 0));
  },
  "a computed operand with a costly scale": (t) =>
    t([6, 16]).matmul(
      t([16, 1])
        .exp()
        .mul(t([1, 24]))
        .expand([16, 24]),
    ),
};

/** Arithmetic whose values fit in a byte, and such whose values just do not. */
const ofBytes: Record<string, (x: Tensor) => Tensor> = {
  "bits of bytes": (x) => x.and(60).or(1).xor(255),
  "shifts of bytes": (x) => x.shiftRight(3).add(x.shiftRight(7)),
  "quotients and remainders of bytes": (x) => x.cast("f32").div(16).floor().add(x.cast("f32").mod(8)),
  "quotients and remainders of bytes as integers": (x) => x.intDivide(4).cast("i32").sub(x.mod(32).cast("i32")),
  "bytes below zero": (x) => x.cast("i32").and(127).sub(128),
  "bytes past 255": (x) => x.add(1).cast("f32").sub(x.cast("f32").sub(200)),
  "unsigned bytes that wrap": (x) => x.and(15).sub(8),
  "bytes as floats and back": (x) => x.cast("f32").mod(16).sub(8).cast("i32").mul(3),
  "bytes of a third": (x) => x.cast("f32").div(3).floor(),
};

for (const [name, build] of Object.entries(ofBytes)) {
  test(`${name} = the float64 reference`, () =>
    agree((_, ints) => build(ints(Array.from({ length: 77 }, (_, i) => (i * 37) % 256)).cast("u8")).cast("f32"), reference, tested));
}

/** Steps of random programs over integers and whole floats, which stay such as f32 holds exactly. */
const steps: readonly ((x: Tensor, value: number) => Tensor)[] = [
  (x) => x.cast("f32"),
  (x) => x.cast("i32"),
  (x) => (x.dtype === "f32" ? x : x.and(255).cast("u32")),
  (x, value) => x.add(value % 300),
  (x, value) => (x.dtype === "f32" ? x : x.cast("i32")).sub(value % 300),
  (x, value) => (x.dtype === "f32" ? x.mod(2 ** (value % 6)) : x.and(value % 256)),
  (x, value) => (x.dtype === "f32" ? x.div(2 ** (value % 5)).floor() : x.shiftRight(value % 8)),
  (x, value) => (x.dtype === "f32" ? x.floor() : x.xor(value % 128)),
  (x, value) => (x.dtype === "f32" ? x.mul(value % 3) : x.intDivide(1 + (value % 16))),
];
const programs = fc.array(fc.tuple(fc.nat(steps.length - 1), fc.nat(999)), { minLength: 1, maxLength: 6 });

test("any program over bytes, alone and as an operand of products = the float64 reference", async () => {
  const [rows, columns] = [6, 64];
  await fc.assert(
    fc.asyncProperty(programs, async (program) => {
      const results: Float32Array[][] = [];
      for (const dev of [reference, tested]) {
        const bytes = Uint8Array.from({ length: rows * columns }, (_, i) => (i * 37 + (i >> 3)) & 255);
        const start = tensor(bytes, { shape: [rows, columns], dtype: "u8", device: dev });
        const made = program.reduce((x, [step, value]) => (steps[step] ?? ((y: Tensor) => y))(x, value), start as Tensor).cast("f32");
        const weight = made.mul(matrix(rows, 1, dev));
        const outputs = [made, matrix(1, columns, dev).matmul(weight.transpose()), matrix(5, rows, dev).matmul(weight)];
        await realize(...outputs);
        results.push((await Promise.all(outputs.map((output) => output.data()))) as Float32Array[]);
      }
      for (const [i, want] of (results[0] ?? []).entries()) {
        const got = results[1]?.[i] ?? [];
        const scale = want.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
        // The values alone are exact but for what f32 does not hold; sums are relative to the largest of what is added up.
        const tolerance = i === 0 ? scale * 1e-7 : scale * 1e-3;
        for (const [j, value] of want.entries())
          if (!(Math.abs((got[j] ?? Number.NaN) - value) <= tolerance))
            throw new Error(`output ${i}, element ${j}: ${got[j]} instead of ${value}`);
      }
    }),
    { numRuns: testBackend() === "cpu" ? 100 : 10, seed: 11 },
  );
});

function arangeLike(x: Tensor, count: number): Tensor {
  return arange(count, { device: x.device }).cast("f32");
}

for (const [name, build] of Object.entries(cases)) test(`${name} = the float64 reference`, () => agree(build, reference, tested));
