import { arange, concat, type Device, device, full, realize, shiftLeft, shiftRight, type Tensor, tensor } from "@lowrank/tensor";
import fc from "fast-check";
import { testBackend, testDevice } from "test-support";
import { beforeAll, expect, test } from "vitest";

let dev: Device;
const devices: Device[] = [];

beforeAll(async () => {
  devices.push(await testDevice(), await device("reference"));
});

const i32 = (values: readonly number[]): Tensor => tensor([...values], { dtype: "i32", device: dev });

const u32 = (values: readonly number[]): Tensor => tensor([...values], { dtype: "u32", device: dev });

/** aᵇ modulo 2³², b ≥ 0, as i32. */
function power(a: bigint, b: bigint): bigint {
  let [result, square] = [1n, a];
  for (let left = b; left > 0n; left >>= 1n) {
    if (left & 1n) result = BigInt.asIntN(32, result * square);
    square = BigInt.asIntN(32, square * square);
  }
  return result;
}

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
  "x + x, thirty times": [() => doubled(i32([1, -3]), 30), [2 ** 30, 2 ** 30]],
  "x + x, thirty times, as indices": [() => i32([5, 6, 7]).gather(doubled(i32([0, 1, 2]), 30)), [5, 7, 5]],
  "indices past both ends": [() => i32([5, 6, 7]).gather(i32([-1, 3, 2147483647, -2147483648])), [5, 7, 7, 5]],
  "a u32 past the end of i32 is the last index": [
    () => i32([5, 6, 7]).gather(tensor([4294967295, 1], { dtype: "u32", device: dev })),
    [7, 6],
  ],
  "the smallest of u32 with 0 is 0": [() => u32([0, 5]).min().reshape([1]), [0]],
  "the smallest of u8 with 0 is 0": [() => u32([0, 5]).cast("u8").min().reshape([1]), [0]],
  "the smallest of i32 is the smallest there is": [() => i32([-2147483648, 5]).min().reshape([1]), [-2147483648]],
  "the smallest of u32 along an axis": [() => u32([7, 4294967295, 4294967295, 4294967294]).reshape([2, 2]).min(1), [7, 4294967294]],
  "the smallest of many": [() => arange(100_000, { device: dev }).sub(70_000).mul(3).min().reshape([1]), [-210_000]],
  "argmin of u32": [() => u32([5, 0, 0]).argmin().reshape([1]), [1]],
  "sums wrap": [() => i32([2147483647, 2147483647, 3]).sum().reshape([1]), [1]],
  "squares and cubes of i32 are i32 and wrap": [() => concat([i32([-3, 65537]).pow(2), i32([-3, 65537]).pow(3)]), [9, 131073, -27, 196609]],
  "u32 to a power is u32": [
    () =>
      u32([2, 3])
        .pow(31)
        .add(u32([1, 0])),
    [2147483649, 3 ** 31 % 2 ** 32],
  ],
  "integers to integers, negative ones included": [
    () => i32([2, -1, -1, 0, 1, 7, 0, -5]).pow(i32([10, -3, -4, -1, -9, 0, 0, 2147483647])),
    [1024, -1, 1, 0, 1, 1, 1, Number(power(-5n, 2147483647n))],
  ],
  "constants wrap before they are cast": [
    () =>
      full([], 3e9, { dtype: "i32", device: dev })
        .cast("f32")
        .add(full([], 5, { dtype: "bool", device: dev }).cast("f32"))
        .reshape([1]),
    [Math.fround(3e9 - 2 ** 32 + 1)],
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
  test(name, async () => {
    for (dev of devices) expect(Array.from(await build().data()), dev.name).toEqual(wanted);
  });
}

test("a number that the integers beside it do not have is refused, as in torch, and does not wrap in silence", () => {
  for (const dtype of ["i32", "u8", "bool"] as const) {
    const x = tensor([1, 0], { dtype, device: dev });
    for (const use of [() => x.less(5e9), () => x.maximum(-3e9), () => x.mul(2 ** 32)]) expect(use, dtype).toThrow(/\.cast\("f32"\)/);
  }
  expect([u32([7]).add(2 ** 32 - 1).dtype, i32([7]).div(5e9).dtype, i32([7]).less(Number.POSITIVE_INFINITY).dtype]).toEqual([
    "u32",
    "f32",
    "bool",
  ]);
});

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
  pow: {
    exact: (a, b) => (b >= 0n ? power(a, b) : a === 1n ? 1n : a === -1n ? (b & 1n ? -1n : 1n) : 0n),
    of: (a, b) => a.pow(b),
  },
  neg: { exact: (a) => -a, of: (a) => a.neg() },
  abs: { exact: (a) => (a < 0n ? -a : a), of: (a) => a.abs() },
};

/** What becomes of all elements together. */
const reductions: Record<string, { readonly exact: (x: readonly bigint[]) => bigint; readonly of: (x: Tensor) => Tensor }> = {
  sum: { exact: (x) => x.reduce((a, b) => a + b), of: (x) => x.sum() },
  max: { exact: (x) => x.reduce((a, b) => (a > b ? a : b)), of: (x) => x.max() },
  min: { exact: (x) => x.reduce((a, b) => (a < b ? a : b)), of: (x) => x.min() },
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

test.each([0, 1])("any integer program = the same over ℤ, modulo 2³² (%i: the device, the reference)", async (which) => {
  dev = devices[which] as Device;
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
      const { tensor: last, exact, dtype } = pool.at(-1) as Value;
      const reduced = Object.values(reductions).map(({ of, exact: over }) => ({ tensor: of(last), exact: [bits(dtype, over(exact))] }));
      const results = [...pool.slice(-3), ...reduced];
      await realize(...results.map((result) => result.tensor));
      for (const result of results) expect(Array.from(await result.tensor.data()).map(BigInt), trace.join("; ")).toEqual(result.exact);
    }),
    // Software adapters compile for a tenth of a second what they run once.
    { numRuns: testBackend() === "cpu" ? 150 : 20, seed: 11 },
  );
});
