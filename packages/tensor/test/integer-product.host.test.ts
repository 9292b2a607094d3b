import { concat, type Device, device, roundedActivations, type Tensor, tensor } from "@lowrank/tensor";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const devices = new Map<number, Device>();
beforeAll(async () => {
  for (const threads of [1, 2]) devices.set(threads, await device("cpu", { threads }));
});
afterAll(() => {
  for (const dev of devices.values()) dev.dispose();
});

const blockSize = 32;

/** A weight [n, k] of integers in blocks of 32, each block times a scale and plus a minimum. */
interface Weight {
  readonly integers: Int16Array;
  readonly scales: Float32Array;
  readonly minima: Float32Array | null;
  /** The same as operations over what lies in memory. */
  readonly tensor: Tensor;
}

type Make = (n: number, k: number, dev: Device) => Weight;

/** Numbers from 0 to 1. */
function numbers(count: number, seed: number): number[] {
  let state = seed;
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return state / 0x80000000;
  });
}

function parts(n: number, k: number, [low, high]: readonly [number, number], dev: Device) {
  const blocks = k / blockSize;
  const integers = Int16Array.from(numbers(n * k, 7), (x) => Math.floor(low + x * (high - low + 1)));
  // Exact in f16.
  const scales = Float32Array.from(numbers(n * blocks, 8), (x) => (1 + Math.floor(x * 100)) / 128);
  const d = tensor(scales, { dtype: "f16", shape: [n, blocks, 1], device: dev });
  const bytes = (of: (at: number) => number, shape: readonly number[]): Tensor =>
    tensor(
      Uint8Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, at) => of(at)),
      { dtype: "u8", shape: [...shape], device: dev },
    );
  return { integers, scales, d, blocks, bytes };
}

/** Numbers j and j + 16 of a block in one byte, as in GGUF's Q4_0. */
const halves: Make = (n, k, dev) => {
  const { integers, scales, d, blocks, bytes } = parts(n, k, [-8, 7], dev);
  const packed = bytes(
    (at) => {
      const first = Math.floor(at / 16) * blockSize + (at % 16);
      return ((integers[first] ?? 0) + 8) | (((integers[first + 16] ?? 0) + 8) << 4);
    },
    [n, blocks, 16],
  );
  const q = concat([packed.and(15), packed.shiftRight(4)], 2)
    .cast("f32")
    .sub(8);
  return { integers, scales, minima: null, tensor: q.mul(d).reshape([n, k]) };
};

/** The same and a minimum, as in Q4_1. */
const halvesAndMinima: Make = (n, k, dev) => {
  const { integers, scales, d, blocks, bytes } = parts(n, k, [0, 15], dev);
  const packed = bytes(
    (at) => {
      const first = Math.floor(at / 16) * blockSize + (at % 16);
      return (integers[first] ?? 0) | ((integers[first + 16] ?? 0) << 4);
    },
    [n, blocks, 16],
  );
  const minima = Float32Array.from(numbers(n * blocks, 9), (x) => (Math.floor(x * 200) - 100) / 64);
  const q = concat([packed.and(15), packed.shiftRight(4)], 2).cast("f32");
  const min = tensor(minima, { dtype: "f16", shape: [n, blocks, 1], device: dev });
  return { integers, scales, minima, tensor: q.mul(d).add(min).reshape([n, k]) };
};

/** A byte with its sign a number, as in Q8_0. */
const signed: Make = (n, k, dev) => {
  const { integers, scales, d, blocks, bytes } = parts(n, k, [-128, 127], dev);
  const q = bytes((at) => (integers[at] ?? 0) & 255, [n, blocks, blockSize])
    .xor(128)
    .cast("f32")
    .sub(128);
  return { integers, scales, minima: null, tensor: q.mul(d).reshape([n, k]) };
};

/** Rows of which some elements are far larger than the others, one row and one block are 0. */
function rowsOf(m: number, k: number): Float32Array {
  return Float32Array.from(numbers(m * k, 3), (x, at) => {
    const row = Math.floor(at / k);
    if (row === 1 || (row === 2 && at % k < blockSize)) return 0;
    return (x - 0.5) * (at % 97 === 0 ? 50 : 1) * (row % 3 === 0 ? 1e-4 : 1);
  });
}

/** The nearest integer, of two the even one. */
function nearest(x: number): number {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

/** What 16 bits a block leave of a row. */
function rounded(x: Float32Array): Float64Array {
  const result = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += blockSize) {
    const block = x.subarray(start, start + blockSize);
    const most = block.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
    for (const [i, value] of block.entries()) {
      const factor = Math.fround(32767 / most);
      result[start + i] = most === 0 ? 0 : nearest(Math.fround(value * factor)) * (most / 32767);
    }
  }
  return result;
}

/** A product's element in float64, and the sum of its terms' magnitudes. Minima meet the rows as they are. */
function elementOf(
  weight: Weight,
  x: Float32Array,
  integers: Float64Array,
  k: number,
  row: number,
  column: number,
): readonly [number, number] {
  let [sum, magnitude] = [0, 0];
  for (let i = 0; i < k; i++) {
    const block = Math.floor((column * k + i) / blockSize);
    const term = (integers[row * k + i] ?? 0) * (weight.integers[column * k + i] ?? 0) * (weight.scales[block] ?? 0);
    const min = (x[row * k + i] ?? 0) * (weight.minima?.[block] ?? 0);
    sum += term + min;
    magnitude += Math.abs(term) + Math.abs(min);
  }
  return [sum, magnitude];
}

const weights = { "halves of bytes": halves, "halves of bytes with minima": halvesAndMinima, "signed bytes": signed };
/** Sums of f32 err by a few of its last bits of their terms; half of the last of 16 bits of a block is more. */
const tolerance = 2 ** -21;

const sizes = [
  { m: 1, n: 13, k: 96 },
  { m: 7, n: 13, k: 96 },
  { m: 7, n: 24, k: 576 },
  { m: 256, n: 20, k: 1536 },
  { m: 6, n: 9, k: 4640 },
];

describe("rows that may be rounded, times integers with a factor a block: the float64 reference on rows of 16 bits", () => {
  for (const [name, make] of Object.entries(weights))
    for (const { m, n, k } of sizes)
      test.each([1, 2])(`${name}, ${m} x ${k} x ${n}, on %i threads`, async (threads) => {
        const dev = devices.get(threads) as Device;
        const weight = make(n, k, dev);
        const x = rowsOf(m, k);
        const rows = tensor(x, { shape: [m, k], device: dev });
        // With an epilogue.
        const got = await roundedActivations(() => rows.matmul(weight.tensor.transpose()).mul(2)).data();
        const integers = rounded(x);
        expect(got.length).toBe(m * n);
        for (let row = 0; row < m; row++)
          for (let column = 0; column < n; column++) {
            const [sum, magnitude] = elementOf(weight, x, integers, k, row, column);
            const value = (got[row * n + column] ?? Number.NaN) / 2;
            if (!(Math.abs(value - sum) <= magnitude * tolerance))
              throw new Error(`row ${row}, column ${column}: ${value} instead of ${sum}, terms of ${magnitude}`);
          }
      });
});

test("a product of so many rows and columns that both are taken in parts = the reference at some of them", async () => {
  const dev = devices.get(2) as Device;
  const [m, n, k] = [1030, 1001, 2304];
  const weight = halves(n, k, dev);
  const x = rowsOf(m, k);
  const integers = rounded(x);
  const got = await roundedActivations(() => tensor(x, { shape: [m, k], device: dev }).matmul(weight.tensor.transpose())).data();
  for (const row of [0, 3, 511, 514, 515, 516, 1029])
    for (const column of [0, 7, 500, 503, 504, 511, 1000]) {
      const [sum, magnitude] = elementOf(weight, x, integers, k, row, column);
      expect(Math.abs((got[row * n + column] ?? Number.NaN) - sum)).toBeLessThanOrEqual(magnitude * tolerance);
    }
});

test("a row's products are the same bits whatever rows are beside it", async () => {
  const dev = devices.get(2) as Device;
  const [m, n, k] = [64, 40, 576];
  const weight = halvesAndMinima(n, k, dev).tensor;
  const x = rowsOf(m, k);
  const product = (first: number, count: number): Promise<ArrayLike<number>> => {
    const rows = tensor(x.slice(first * k, (first + count) * k), { shape: [count, k], device: dev });
    return roundedActivations(() => rows.matmul(weight.transpose())).data() as Promise<ArrayLike<number>>;
  };
  const whole = Array.from(await product(0, m));
  for (const [first, count] of [
    [0, 5],
    [3, 7],
    [21, 43],
  ] as const)
    expect(Array.from(await product(first, count))).toEqual(whole.slice(first * n, (first + count) * n));
});

test("rows are not rounded where nobody allows it, nor for gradients' products", async () => {
  const dev = devices.get(1) as Device;
  const [m, n, k] = [16, 64, 96];
  const weight = signed(n, k, dev);
  const x = rowsOf(m, k);
  const rows = tensor(x, { shape: [m, k], device: dev });
  const got = await rows.matmul(weight.tensor.transpose()).data();
  for (let row = 0; row < m; row++)
    for (let column = 0; column < n; column++) {
      const [sum, magnitude] = elementOf(weight, x, Float64Array.from(x), k, row, column);
      expect(Math.abs((got[row * n + column] ?? Number.NaN) - sum)).toBeLessThanOrEqual(magnitude * tolerance);
    }
  const both = roundedActivations(() => [rows.matmul(weight.tensor.transpose())]);
  const [allowed] = await Promise.all(both.map((each) => each.data()));
  expect(Array.from(allowed ?? [])).not.toEqual(Array.from(got));
});

test("what throws inside ends the permission", async () => {
  const dev = devices.get(1) as Device;
  const weight = signed(8, 32, dev);
  const x = tensor(rowsOf(8, 32), { shape: [8, 32], device: dev });
  const before = Array.from(await x.matmul(weight.tensor.transpose()).data());
  expect(() =>
    roundedActivations(() => {
      throw new Error("no");
    }),
  ).toThrow("no");
  expect(Array.from(await x.matmul(weight.tensor.transpose()).data())).toEqual(before);
});
