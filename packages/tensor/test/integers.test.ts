import { arange, type Device, full, shiftLeft, shiftRight, type Tensor, tensor } from "@lowrank/tensor";
import fc from "fast-check";
import { testDevice } from "test-support";
import { beforeAll, expect, test } from "vitest";

let dev: Device;

beforeAll(async () => {
  dev = await testDevice();
});

const i32 = (values: readonly number[]): Tensor => tensor([...values], { dtype: "i32", device: dev });

/** x + x, `times` times. */
function doubled(x: Tensor, times: number): Tensor {
  let y = x;
  for (let i = 0; i < times; i++) y = y.add(y);
  return y;
}

const rows: Record<string, readonly [build: () => Tensor, wanted: readonly number[]]> = {
  "products of constants wrap": [() => i32([3]).mul(2147483647).mul(2147483647), [3]],
  "products of a position wrap, and comparisons see what wrapped": [
    () => arange(50000, { device: dev }).mul(50000).less(0).cast("i32").sum().reshape([1]),
    [7050],
  ],
  "a position plus the largest number wraps": [() => arange(3, { device: dev }).add(2147483647).less(0).cast("i32"), [0, 1, 1]],
  "a quotient of a wrapped product is that of what wrapped": [
    () => arange(3, { device: dev }).mul(65536).mul(65536).intDivide(65536),
    [0, 0, 0],
  ],
  "a product of a position is not divided by its factor again": [
    () => arange(4, { device: dev }).mul(1_500_000_000).intDivide(1_500_000_000),
    [0, 1, 0, 0],
  ],
  "numbers beyond 32 bits wrap": [() => i32([1, 2]).add(2 ** 32 + 5), [6, 7]],
  "x + x, thirty times": [() => doubled(i32([1, -3]), 30), [2 ** 30, 2 ** 30]],
  "x + x, thirty times, as indices": [() => i32([5, 6, 7]).gather(doubled(i32([0, 1, 2]), 30)), [5, 7, 5]],
  "indices past both ends": [() => i32([5, 6, 7]).gather(i32([-1, 3, 2147483647, -2147483648])), [5, 7, 7, 5]],
  "a u32 past the end of i32 is the last index": [
    () => i32([5, 6, 7]).gather(tensor([4294967295, 1], { dtype: "u32", device: dev })),
    [7, 6],
  ],
  "f32 out of range is the nearest integer": [
    () =>
      full([2], 3e9, { device: dev })
        .cast("i32")
        .add(full([2], Number.NaN, { device: dev }).cast("i32")),
    [2147483647, 2147483647],
  ],
};

for (const [name, [build, wanted]] of Object.entries(rows)) {
  test(name, async () => expect(Array.from(await build().data())).toEqual(wanted));
}

type Integer = "i32" | "u32";
/** One value of a program: elements as exact integers. */
interface Value {
  readonly dtype: Integer;
  readonly exact: readonly bigint[];
  readonly tensor: Tensor;
}

const length = 5;
const bits = (dtype: Integer, x: bigint): bigint => (dtype === "i32" ? BigInt.asIntN(32, x) : BigInt.asUintN(32, x));
const shiftCount = (x: bigint): bigint => BigInt.asUintN(5, x);

interface Step {
  readonly exact: (a: bigint, b: bigint, dtype: Integer) => bigint;
  readonly of: (a: Tensor, b: Tensor) => Tensor;
}

/** Integer functions by their definition over ℤ; the result is taken modulo 2³². */
const steps: Record<string, Step> = {
  add: { exact: (a, b) => a + b, of: (a, b) => a.add(b) },
  sub: { exact: (a, b) => a - b, of: (a, b) => a.sub(b) },
  mul: { exact: (a, b) => a * b, of: (a, b) => a.mul(b) },
  intDivide: { exact: (a, b) => (b === 0n ? 0n : a / b), of: (a, b) => a.intDivide(b) },
  mod: { exact: (a, b) => (b === 0n ? 0n : a % b), of: (a, b) => a.mod(b) },
  maximum: { exact: (a, b) => (a > b ? a : b), of: (a, b) => a.maximum(b) },
  minimum: { exact: (a, b) => (a < b ? a : b), of: (a, b) => a.minimum(b) },
  and: { exact: (a, b) => a & b, of: (a, b) => a.and(b) },
  or: { exact: (a, b) => a | b, of: (a, b) => a.or(b) },
  xor: { exact: (a, b) => a ^ b, of: (a, b) => a.xor(b) },
  shiftLeft: { exact: (a, b) => a << shiftCount(b), of: (a, b) => shiftLeft(a, b) },
  shiftRight: { exact: (a, b) => a >> shiftCount(b), of: (a, b) => shiftRight(a, b) },
  less: { exact: (a, b) => (a < b ? 1n : 0n), of: (a, b) => a.less(b).cast(a.dtype) },
  lessEqual: { exact: (a, b) => (a <= b ? 1n : 0n), of: (a, b) => a.lessEqual(b).cast(a.dtype) },
  equal: { exact: (a, b) => (a === b ? 1n : 0n), of: (a, b) => a.equal(b).cast(a.dtype) },
  where: { exact: (a, b) => (a > b ? b : a + 1n), of: (a, b) => a.greater(b).where(b, a.add(1)) },
  neg: { exact: (a) => -a, of: (a) => a.neg() },
  abs: { exact: (a) => (a < 0n ? -a : a), of: (a) => a.abs() },
};

const names = Object.keys(steps);
const extremes = [0, 1, -1, 2, 3, 7, 31, 32, 65536, 2147483647, -2147483648, 4294967295, 1_500_000_000];
const numbers = fc.oneof(fc.constantFrom(...extremes), fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), fc.integer({ min: -9, max: 9 }));
const leaves = fc.record({
  dtype: fc.constantFrom("i32" as const, "u32" as const),
  kind: fc.constantFrom("memory", "constant", "position"),
  values: fc.array(numbers, { minLength: length, maxLength: length }),
});
const programs = fc.record({
  leaves: fc.array(leaves, { minLength: 2, maxLength: 4 }),
  steps: fc.array(fc.tuple(fc.nat(names.length - 1), fc.nat(1000), fc.nat(1000)), { minLength: 1, maxLength: 8 }),
});

function leaf({ dtype, kind, values }: typeof leaves extends fc.Arbitrary<infer T> ? T : never): Value {
  const all = kind === "constant" ? values.map(() => values[0] ?? 0) : kind === "position" ? values.map((_, i) => i) : values;
  const exact = all.map((x) => bits(dtype, BigInt(x)));
  if (kind === "constant") return { dtype, exact, tensor: full([length], all[0] ?? 0, { dtype, device: dev }) };
  if (kind === "position") return { dtype, exact, tensor: arange(length, { dtype, device: dev }) };
  return { dtype, exact, tensor: tensor(exact.map(Number), { dtype, device: dev }) };
}

test("any integer program = the same over ℤ, modulo 2³²", async () => {
  await fc.assert(
    fc.asyncProperty(programs, async (program) => {
      const pool = program.leaves.map(leaf);
      const trace: string[] = [];
      for (const [op, i, j] of program.steps) {
        const name = names[op] as string;
        const step = steps[name] as Step;
        const a = pool[i % pool.length] as Value;
        let b = pool[j % pool.length] as Value;
        // Of two types the result has i32, as `promote` says: the other one's bits are read as such.
        if (a.dtype !== b.dtype) b = { dtype: a.dtype, exact: b.exact.map((x) => bits(a.dtype, x)), tensor: b.tensor.cast(a.dtype) };
        trace.push(`${pool.length}: ${name}(${i % pool.length}, ${j % pool.length})`);
        pool.push({
          dtype: a.dtype,
          exact: a.exact.map((x, k) => bits(a.dtype, step.exact(x, b.exact[k] as bigint, a.dtype))),
          tensor: step.of(a.tensor, b.tensor),
        });
      }
      for (const { tensor: result, exact } of pool.slice(-3)) {
        expect(Array.from(await result.data()).map(BigInt), trace.join("; ")).toEqual(exact);
      }
    }),
    { numRuns: 150, seed: 11 },
  );
});
