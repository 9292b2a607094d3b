// Slow: each row runs on three numbers of threads, with and without fused multiply-add, beside a float64 interpreter.
import { type AttentionOptions, attention, attentionBackward, concat, device, realize, Tensor, tensor } from "@lowrank/tensor";
import { expectSameLists } from "test-support";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createCpuBackend } from "../src/backends/cpu/backend.js";
import { nodeEnvironment } from "../src/backends/cpu/node.js";
import { Device } from "../src/graph/device.js";
import { planExecutor } from "../src/schedule/plan-executor.js";
import { bodyRows, compare, packedRows, type Row, rows, run, startsOf, values, visibilityRows } from "./attention-cases.js";

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

async function check(row: Row, isCausal: boolean, isStrided: boolean): Promise<void> {
  const want = await run(reference, row, isCausal, isStrided);
  for (const devices of variants) {
    const [got = [], ...others] = await Promise.all(devices.map((dev) => run(dev, row, isCausal, isStrided)));
    for (const other of others) expectSameLists(other, got);
    compare(got, want, row);
  }
}

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

  for (const [name, row] of Object.entries(visibilityRows)) it(name, () => check(row, true, (row.window ?? 0) % 2 === 1));

  for (const [name, row] of Object.entries(bodyRows)) it(name, () => check(row, true, row.keyHeads === 2));

  it("sees exactly the keys that the rule names", async () => {
    const [queries, keys, window, prefix] = [9, 13, 3, 2];
    const starts = [4, 4, 4, 4, 8, 8, 8, 8, 12];
    const make = (count: number, seed: number): Tensor =>
      tensor(values([1, 1, count, 4], seed), { shape: [1, 1, count, 4], device: reference });
    const [q, k, v] = [make(queries, 1), make(keys, 2), make(keys, 3)];
    const offset = keys - queries;
    const cases: [AttentionOptions, (query: number, key: number) => boolean][] = [
      [{ window }, (i, j) => j > i + offset - window],
      [{ prefix: 7 }, (_, j) => j < 7],
      [{ window, prefix }, (i, j) => j > i + offset - window || j < prefix],
      [{ starts: tensor([starts], { dtype: "i32", device: reference }), prefix }, (i, j) => j >= (starts[i] ?? 0) || j < prefix],
    ];
    for (const [options, isSeen] of cases) {
      const mask = Float32Array.from({ length: queries * keys }, (_, at) => {
        const [i, j] = [Math.floor(at / keys), at % keys];
        const isInside = j <= i + offset || j < (options.prefix ?? 0);
        return (isInside && isSeen(i, j)) || (options.prefix === 7 && j <= i + offset) ? 0 : Number.NEGATIVE_INFINITY;
      });
      const want = await attention(q, k, v, { mask: tensor(mask, { shape: [queries, keys], device: reference }) }).data();
      expectSameLists([await attention(q, k, v, { isCausal: true, ...options }).data()], [want]);
    }
  });

  it("refuses windows and prefixes that do not fit", () => {
    const x = tensor(values([1, 2, 4, 8], 1), { shape: [1, 2, 4, 8], device: reference });
    expect(() => attention(x, x, x, { window: 2 })).toThrow(/window is 2 and attention is not causal/);
    for (const window of [0, 1.5, -3]) expect(() => attention(x, x, x, { isCausal: true, window })).toThrow(/whole number of at least 1/);
    for (const prefix of [-1, 5, 0.5]) expect(() => attention(x, x, x, { isCausal: true, prefix })).toThrow(/how many of the 4 keys/);
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
