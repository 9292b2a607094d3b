import { attention, attentionBackward, concat, device, realize, Tensor, tensor } from "@lowrank/tensor";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createCpuBackend } from "../src/backends/cpu/backend.js";
import { nodeEnvironment } from "../src/backends/cpu/node.js";
import { Device } from "../src/backends/device.js";
import { planExecutor } from "../src/schedule/plan-executor.js";

const environment = nodeEnvironment();
const cpu = (threadCount: number, hasRelaxedSimd: boolean): Device =>
  new Device("cpu", createCpuBackend({ environment: { ...environment, hasRelaxedSimd }, threadCount, soloNanoseconds: 0 }), planExecutor());
/** With fused multiply-add where the runtime has it, and without; each on one, two and three threads. */
const variants = [...new Set([environment.hasRelaxedSimd, false])].map((isRelaxed) => [1, 2, 3].map((threads) => cpu(threads, isRelaxed)));
let reference: Device;

beforeAll(async () => {
  reference = await device("reference");
});
afterAll(() => {
  for (const dev of variants.flat()) dev.dispose();
});

interface Row {
  readonly batch?: number;
  readonly heads: number;
  readonly keyHeads?: number;
  readonly queries: number;
  readonly keys?: number;
  readonly dim: number;
  readonly valueDim?: number;
  /** Multiplies queries and keys, for scores that are far apart. */
  readonly size?: number;
  /** Lengths of texts packed one behind the other; the last goes on to the end. Those of later rows of the batch are turned round. */
  readonly packed?: readonly number[];
}

/** The first key that each query sees, [batch, queries]. */
function startsOf(lengths: readonly number[], batch: number, queries: number): Int32Array {
  const starts = new Int32Array(batch * queries);
  for (let row = 0; row < batch; row++) {
    let start = 0;
    for (const length of row % 2 === 0 ? lengths : [...lengths].reverse()) {
      const end = start + length;
      if (end >= queries) break;
      starts.fill(end, row * queries + end, (row + 1) * queries);
      start = end;
    }
  }
  return starts;
}

/** Deterministic values that differ everywhere. */
function values(shape: readonly number[], seed: number, size = 1): Float32Array {
  const count = shape.reduce((a, b) => a * b, 1);
  return Float32Array.from({ length: count }, (_, i) => Math.sin(i * 1.7 + seed * 3.1 + i * i * 1e-3) * size);
}

/**
 * [out, logsumexp, dQueries, dKeys, dValues] on one device. Strided: operands are heads side by side in the middle of wider rows, as a
 * model's are, and so are results read.
 */
async function run(dev: Device, row: Row, isCausal: boolean, isStrided: boolean): Promise<(ArrayLike<number> & Iterable<number>)[]> {
  const { batch = 2, heads, keyHeads = heads, queries, keys = queries, dim, valueDim = dim, size = 1 } = row;
  let seed = 0;
  const make = (count: number, length: number, width: number, scale = 1): Tensor => {
    seed++;
    if (!isStrided) {
      const shape = [batch, count, length, width];
      return tensor(values(shape, seed, scale), { shape, device: dev });
    }
    const data = values([batch, length, count * width + 6], seed, scale);
    return tensor(data, { shape: [batch, length, count * width + 6], device: dev })
      .slice([0, batch], [0, length], [3, 3 + count * width])
      .reshape([batch, length, count, width])
      .permute([0, 2, 1, 3]);
  };
  const q = make(heads, queries, dim, size);
  const k = make(keyHeads, keys, dim, size);
  const v = make(keyHeads, keys, valueDim);
  const dOut = make(heads, queries, valueDim);
  const starts = row.packed && tensor(startsOf(row.packed, batch, queries), { dtype: "i32", shape: [batch, queries], device: dev });
  const out = attention(q, k, v, { isCausal, ...(starts && { starts }) });
  const { node } = out;
  if (node.op !== "output") throw new Error("attention is no composite");
  const logsumexp = new Tensor({ op: "output", of: node.of, index: 1, shape: [batch, heads, queries], dtype: "f32" }, dev);
  const gradients = attentionBackward([q, k, v, out, logsumexp, dOut, ...(starts ? [starts] : [])], node.of.attributes);
  const merged = (x: Tensor): Tensor =>
    isStrided
      ? x
          .permute([0, 2, 1, 3])
          .reshape([batch, x.shape[2] ?? 1, -1])
          .mul(2)
      : x;
  const results = [merged(out), logsumexp, ...gradients.map(merged)];
  await realize(...results);
  return Promise.all(results.map((result) => result.data()));
}

async function check(row: Row, isCausal: boolean, isStrided: boolean): Promise<void> {
  const want = await run(reference, row, isCausal, isStrided);
  for (const devices of variants) {
    const [got = [], ...others] = await Promise.all(devices.map((dev) => run(dev, row, isCausal, isStrided)));
    for (const other of others) for (const [i, result] of other.entries()) expect(result).toEqual(got[i]);
    compare(got, want, row);
  }
}

function compare(got: readonly ArrayLike<number>[], want: readonly ArrayLike<number>[], row: Row): void {
  for (const [i, name] of ["out", "logsumexp", "dQueries", "dKeys", "dValues"].entries()) {
    const exact = Array.from(want[i] ?? []);
    const result = got[i] ?? [];
    expect(result.length).toBe(exact.length);
    // dP and delta, sums of `dim` products, cancel where a query sees little; the scores' rounding grows with their size.
    const largest = exact.reduce((most, x) => Math.max(most, Math.abs(x)), Math.sqrt(row.dim) / 4);
    const tolerance = 2e-6 * largest * Math.max(1, (row.size ?? 1) ** 2);
    for (const [at, x] of exact.entries()) {
      const y = result[at] ?? Number.NaN;
      if (!(Math.abs(x - y) <= tolerance))
        throw new Error(`${name}[${at}]: ${y} instead of ${x}, off by ${Math.abs(x - y)} > ${tolerance}`);
    }
  }
}

const rows: Record<string, Row> = {
  "one of everything": { batch: 1, heads: 1, queries: 1, dim: 1 },
  "fewer queries than a panel": { heads: 2, queries: 3, dim: 8 },
  "a few panels": { heads: 3, queries: 17, dim: 20 },
  primes: { batch: 3, heads: 5, queries: 67, dim: 13 },
  "several blocks": { batch: 1, heads: 2, queries: 193, dim: 64 },
  "more keys than queries": { heads: 2, queries: 19, keys: 131, dim: 32 },
  "one query of many keys": { heads: 4, queries: 1, keys: 77, dim: 16 },
  "grouped heads": { heads: 6, keyHeads: 2, queries: 71, dim: 20 },
  "one key head, chunks of keys": { batch: 1, heads: 4, keyHeads: 1, queries: 130, keys: 300, dim: 8 },
  "one head, chunks of keys": { batch: 1, heads: 1, queries: 513, dim: 24 },
  "values of another width": { heads: 4, keyHeads: 2, queries: 37, keys: 41, dim: 12, valueDim: 29 },
  "wide heads": { batch: 1, heads: 2, queries: 37, dim: 256 },
  "very wide heads": { batch: 1, heads: 1, queries: 21, keys: 35, dim: 515 },
  "scores far apart": { heads: 2, queries: 70, dim: 16, size: 6 },
};

const packedRows: Record<string, Row> = {
  "one text": { heads: 2, queries: 40, dim: 8, packed: [40] },
  "texts of one token": { heads: 2, queries: 19, dim: 8, packed: [1, 1, 1, 2, 1, 5, 1] },
  "texts shorter than a panel": { heads: 3, queries: 70, dim: 12, packed: [3, 5, 7, 2, 6, 1, 7, 7, 5, 3] },
  "texts that end where panels and blocks do": { heads: 2, keyHeads: 1, queries: 256, dim: 16, packed: [8, 56, 64, 128] },
  "a few long texts": { batch: 1, heads: 4, keyHeads: 2, queries: 600, dim: 8, packed: [167, 1, 203, 130] },
  "wide values": { heads: 2, queries: 131, dim: 20, valueDim: 37, packed: [30, 61, 9] },
};

describe("cpu attention against float64, with the same bits for 1, 2 and 3 threads", () => {
  for (const [name, row] of Object.entries(rows)) {
    for (const isCausal of [false, true]) {
      for (const isStrided of [false, true]) {
        it(`${name}${isCausal ? ", causal" : ""}${isStrided ? ", strided" : ""}`, () => check(row, isCausal, isStrided));
      }
    }
  }
});

describe("cpu attention of packed texts against float64, with the same bits for 1, 2 and 3 threads", () => {
  for (const [name, row] of Object.entries(packedRows))
    for (const isStrided of [false, true]) it(`${name}${isStrided ? ", strided" : ""}`, () => check(row, true, isStrided));

  it("is attention of the texts apart", async () => {
    const [heads, dim, lengths] = [3, 8, [5, 40, 1, 19]];
    const length = lengths.reduce((a, b) => a + b, 0);
    const dev = reference;
    const [q, k, v] = [1, 2, 3].map((seed) =>
      tensor(values([1, heads, length, dim], seed), { shape: [1, heads, length, dim], device: dev }),
    ) as [Tensor, Tensor, Tensor];
    const starts = tensor(startsOf(lengths, 1, length), { dtype: "i32", shape: [1, length], device: dev });
    const together = await attention(q, k, v, { isCausal: true, starts }).data();
    let start = 0;
    const apart = lengths.map((count) => {
      const part = (x: Tensor): Tensor => x.narrow(2, start, count);
      const out = attention(part(q), part(k), part(v), { isCausal: true });
      start += count;
      return out;
    });
    expect(Array.from(together)).toEqual(Array.from(await concat(apart, 2).data()));
  });

  it("refuses starts that do not fit", () => {
    const x = tensor(values([1, 2, 4, 8], 1), { shape: [1, 2, 4, 8], device: reference });
    const starts = tensor([0, 0, 0], { dtype: "i32", device: reference }).reshape([1, 3]);
    expect(() => attention(x, x, x, { isCausal: true, starts })).toThrow(/starts are i32 \[batch, queries\].*\[1, 3\]/);
    expect(() => attention(x, x, x, { starts: starts.reshape([3, 1]) })).toThrow(/not causal/);
  });
});

it("cpu attention leaves out weights whose products with gradients would be subnormal numbers, which processors are slow at", async () => {
  const smallest = 2 ** -126;
  for (const dev of variants.map(([first]) => first as Device)) {
    const shape = [1, 1, 8, 8];
    const q = tensor(new Float32Array(64).fill(3.25), { shape, device: dev });
    // The first key weighs e^-60, about 2^-87, and the gradient is about 2^-43.
    const k = tensor(
      Float32Array.from({ length: 64 }, (_, i) => (i < 8 ? -3.25 : 3.25)),
      { shape, device: dev },
    );
    const v = tensor(values(shape, 1), { shape, device: dev });
    const dOut = tensor(values(shape, 2, 1e-13), { shape, device: dev });
    const { node } = attention(q, k, v);
    if (node.op !== "output") throw new Error("attention is no composite");
    const [out, logsumexp] = node.of.outputs.map((output, index) => new Tensor({ op: "output", of: node.of, index, ...output }, dev));
    const gradients = attentionBackward([q, k, v, out as Tensor, logsumexp as Tensor, dOut], node.of.attributes);
    await realize(...gradients);
    const [, , dValues] = gradients;
    expect(Array.from((await dValues?.data()) ?? []).slice(0, 8)).toEqual(new Array(8).fill(0));
    for (const gradient of gradients) {
      for (const x of await gradient.data()) expect(x === 0 || Math.abs(x) >= smallest, `${x}`).toBe(true);
    }
  }
});

describe("cpu attention's memory", () => {
  const peak = async (length: number): Promise<number> => {
    const dev = cpu(2, environment.hasRelaxedSimd);
    await run(dev, { batch: 1, heads: 4, queries: length, dim: 32 }, true, true);
    const { peakBytes } = dev.backend.counters;
    dev.dispose();
    return peakBytes;
  };

  it("grows linearly with the sequence", async () => {
    const [one, two, four] = [await peak(256), await peak(512), await peak(1024)];
    expect((four - two) / (two - one)).toBeLessThan(2.1);
    // A matrix of weights alone would take 4 heads · 1024² · 4 bytes = 16 MiB.
    expect(four).toBeLessThan(12 * 2 ** 20);
  });

  it("holds no copy of a model's queries, keys, values or results: one kernel between the products before and after it", async () => {
    const dev = cpu(2, environment.hasRelaxedSimd);
    const [batch, length, heads, dim] = [2, 40, 3, 8];
    const make = (...shape: number[]): Tensor => tensor(values(shape, shape.length), { shape, device: dev });
    const x = make(batch * length, 16).matmul(make(16, 3 * heads * dim));
    const [q, k, v] = x
      .reshape([batch, length, 3 * heads * dim])
      .split(3, -1)
      .map((part) => part.reshape([batch, length, heads, dim]).permute([0, 2, 1, 3])) as [Tensor, Tensor, Tensor];
    const merged = attention(q, k, v, { isCausal: true })
      .permute([0, 2, 1, 3])
      .reshape([batch * length, heads * dim]);
    const result = merged.matmul(make(heads * dim, 5));
    const before = dev.backend.counters.kernelsRun;
    await result.realize();
    expect(dev.backend.counters.kernelsRun - before).toBe(3);
    dev.dispose();
  });
});
