import {
  attention,
  type CachedAttentionOptions,
  cachedAttention,
  compile,
  type Device,
  device,
  ShapeError,
  type Tensor,
  tensor,
} from "@lowrank/tensor";
import { newDevice, testBackend, testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";

let tested: Device;
let reference: Device;
beforeAll(async () => {
  tested = await testDevice();
  reference = await device("reference");
});

interface Case {
  readonly name: string;
  readonly heads: number;
  readonly kvHeads: number;
  readonly queries: number;
  readonly dim: number;
  readonly valueDim?: number;
  readonly capacity: number;
  readonly positions: readonly number[];
  readonly window?: number;
  /** What becomes of scores: a soft cap; a slope for each head and distance, and a table of all keys. */
  readonly scores?: "cap" | "slope";
  readonly hasSinks?: boolean;
  readonly dtype?: "f32" | "bf16";
  readonly tolerance?: number;
}

const cases: readonly Case[] = [
  { name: "one query over a full cache", heads: 2, kvHeads: 2, queries: 1, dim: 8, capacity: 32, positions: [31] },
  { name: "texts of different lengths", heads: 4, kvHeads: 2, queries: 1, dim: 8, capacity: 300, positions: [0, 5, 127, 128, 299] },
  { name: "more values than keys are wide", heads: 2, kvHeads: 1, queries: 1, dim: 4, valueDim: 12, capacity: 40, positions: [3, 17] },
  { name: "a few queries", heads: 4, kvHeads: 2, queries: 3, dim: 16, capacity: 270, positions: [0, 130, 267] },
  { name: "many queries", heads: 2, kvHeads: 1, queries: 37, dim: 8, capacity: 200, positions: [0, 101, 163] },
  { name: "many query heads to a key head", heads: 34, kvHeads: 1, queries: 1, dim: 4, capacity: 40, positions: [0, 39] },
  { name: "a window", heads: 2, kvHeads: 1, queries: 2, dim: 8, capacity: 300, positions: [0, 4, 150, 298], window: 6 },
  { name: "a window of many queries", heads: 1, kvHeads: 1, queries: 40, dim: 8, capacity: 300, positions: [0, 255], window: 33 },
  { name: "a width that is no multiple of four", heads: 2, kvHeads: 1, queries: 1, dim: 6, capacity: 20, positions: [2, 19] },
  { name: "capped scores", heads: 4, kvHeads: 2, queries: 1, dim: 8, capacity: 270, positions: [0, 4, 131, 269], scores: "cap" },
  { name: "capped scores of many queries", heads: 2, kvHeads: 1, queries: 37, dim: 8, capacity: 200, positions: [0, 163], scores: "cap" },
  { name: "sloped scores", heads: 4, kvHeads: 2, queries: 3, dim: 8, capacity: 271, positions: [0, 5, 130, 268], scores: "slope" },
  { name: "sloped scores of many heads", heads: 34, kvHeads: 1, queries: 1, dim: 4, capacity: 40, positions: [0, 39], scores: "slope" },
  { name: "sloped scores of many queries", heads: 2, kvHeads: 1, queries: 37, dim: 8, capacity: 201, positions: [3, 163], scores: "slope" },
  {
    ...{ name: "capped scores, a window and sinks", heads: 4, kvHeads: 2, queries: 1, dim: 8, capacity: 150, positions: [0, 90, 149] },
    ...{ window: 40, scores: "cap", hasSinks: true },
  },
  { name: "sinks", heads: 2, kvHeads: 1, queries: 2, dim: 8, capacity: 150, positions: [0, 120], hasSinks: true },
  { name: "sinks of many queries", heads: 2, kvHeads: 1, queries: 20, dim: 8, capacity: 150, positions: [0, 120], hasSinks: true },
  // bf16 keeps 8 bits of each number; the reference rounds alike.
  { name: "a bf16 cache", heads: 2, kvHeads: 1, queries: 1, dim: 16, capacity: 150, positions: [0, 149], dtype: "bf16" },
];

function wave(count: number, seed: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => 2 * Math.sin(i * 1.7 + seed * 3.1));
}

/** The cases' tensors; of some texts of the batch, where not of all. */
function inputs(dev: Device, c: Case, texts: readonly number[], capacity = c.capacity): Tensor[] {
  const part = (seed: number, heads: number, rows: number, width: number, total = rows): Tensor => {
    const all = texts.flatMap((text) =>
      Array.from({ length: heads }, (_, head) => {
        const values = wave(rows * width, seed + text * 7 + head);
        const padded = new Float32Array(total * width);
        padded.set(values);
        return padded;
      }),
    );
    const values = new Float32Array(texts.length * heads * total * width);
    for (const [i, rowsOf] of all.entries()) values.set(rowsOf, i * total * width);
    return tensor(values, { device: dev, shape: [texts.length, heads, total, width] });
  };
  const stored = (t: Tensor): Tensor => (c.dtype === "bf16" ? t.cast("bf16") : t);
  return [
    part(1, c.heads, c.queries, c.dim),
    stored(part(2, c.kvHeads, c.capacity, c.dim, capacity)),
    stored(part(3, c.kvHeads, c.capacity, c.valueDim ?? c.dim, capacity)),
    tensor(
      texts.map((text) => c.positions[text] ?? 0),
      { device: dev, dtype: "i32" },
    ),
  ];
}

function attend([q, k, v, positions]: readonly Tensor[], { window, scores, hasSinks, heads }: Case): Tensor {
  const keys = k as Tensor;
  const dev = keys.device;
  const [capacity = 0] = keys.shape.slice(2);
  const slopes = tensor(wave(heads, 5), { device: dev, shape: [1, heads, 1, 1] });
  const table = tensor(wave(capacity, 6), { device: dev, shape: [1, 1, 1, capacity] });
  const functions = {
    cap: (s) => s.div(2).tanh().mul(2),
    slope: (s, at) => s.add(at.key.sub(at.query).cast("f32").mul(0.01).mul(slopes)).add(table),
  } as const satisfies Record<string, NonNullable<CachedAttentionOptions["scores"]>>;
  return cachedAttention(q as Tensor, keys, v as Tensor, positions as Tensor, {
    ...(window && { window }),
    ...(scores && { scores: functions[scores] }),
    ...(hasSinks && { sinks: tensor(wave(heads, 8), { device: dev }) }),
  });
}

describe.each(cases)("attention to a cache of $name", (c) => {
  const texts = c.positions.map((_, i) => i);

  test("= the float64 reference", async () => {
    const want = await attend(inputs(reference, c, texts), c).data();
    const got = await attend(inputs(tested, c, texts), c).data();
    for (const [i, value] of want.entries()) expect(Math.abs((got[i] ?? Number.NaN) - value), `element ${i}`).toBeLessThan(2e-5);
  });

  test("is the same in every bit for each text alone, and in a larger cache", async () => {
    // On WebGPU more queries, and functions of the scores, are a matter of products, which are split by their shapes; on the cpu other widths are.
    if (testBackend() === "cpu" ? c.dim % 4 !== 0 : c.queries > 8 || c.scores) return;
    const together = await attend(inputs(tested, c, texts), c).data();
    const each = together.length / texts.length;
    for (const text of texts) {
      const own = together.slice(text * each, (text + 1) * each);
      expect(await attend(inputs(tested, c, [text]), c).data()).toEqual(own);
      expect(await attend(inputs(tested, c, [text], c.capacity * 3 + 5), c).data()).toEqual(own);
    }
  });
});

test("what lay in memory before does not come into the result of many queries", async () => {
  const c = cases.find(({ name }) => name === "many queries") as Case; // it is in the table
  const own = await newDevice();
  const dirty = tensor(new Float32Array(2 ** 21).fill(Number.NaN), { device: own });
  await dirty.add(1).data();
  dirty.dispose();
  const texts = c.positions.map((_, i) => i);
  const got = await attend(inputs(own, c, texts), c).data();
  own.dispose();
  expect([...got].findIndex(Number.isNaN)).toBe(-1);
});

test("queries and results that are views of projections are read and written where they lie", async () => {
  const build = (dev: Device): Tensor => {
    const heads = (seed: number, rows: number): Tensor =>
      tensor(wave(2 * rows * 16, seed), { device: dev, shape: [2, rows, 16] })
        .reshape([2, rows, 2, 8])
        .permute([0, 2, 1, 3]);
    const positions = tensor([4, 9], { device: dev, dtype: "i32" });
    return cachedAttention(heads(1, 3), heads(2, 12), heads(3, 12), positions).permute([0, 2, 1, 3]).reshape([6, 16]);
  };
  const [want, got] = [await build(reference).data(), await build(tested).data()];
  for (const [i, value] of want.entries()) expect(got[i]).toBeCloseTo(value, 4);
});

test("sinks take their share of the weights, as a key without a value would", async () => {
  const shape = [1, 2, 9, 8];
  const [q, k, v] = [1, 2, 3].map((seed) => tensor(wave(2 * 9 * 8, seed), { device: tested, shape })) as [Tensor, Tensor, Tensor];
  const sinks = [0.7, -2];
  const options = { isCausal: true, window: 4, sinks: tensor(sinks, { device: tested }) };
  const results = [
    attention(q, k, v, options),
    attention(q, k, v, { ...options, mask: tensor([0], { device: tested }) }),
    cachedAttention(q, k, v, tensor([0], { device: tested, dtype: "i32" }), options),
  ];
  const [a, b, c] = await Promise.all([q, k, v].map(async (t) => Array.from(await t.data())));
  const found = await Promise.all(results.map((t) => t.data()));
  for (let head = 0; head < 2; head++)
    for (let i = 0; i < 9; i++) {
      const row = (x: readonly number[] | undefined, at: number): number[] => (x ?? []).slice((head * 9 + at) * 8, (head * 9 + at + 1) * 8);
      const seen = Array.from({ length: 9 }, (_, j) => j).filter((j) => j <= i && j > i - 4);
      const weights = seen.map((j) => Math.exp(row(a, i).reduce((sum, x, d) => sum + x * (row(b, j)[d] ?? 0), 0) / Math.sqrt(8)));
      const total = weights.reduce((sum, x) => sum + x, Math.exp(sinks[head] ?? 0));
      for (let d = 0; d < 8; d++) {
        const want = seen.reduce((sum, j, at) => sum + (weights[at] ?? 0) * (row(c, j)[d] ?? 0), 0) / total;
        for (const values of found) expect(values[(head * 9 + i) * 8 + d]).toBeCloseTo(want, 4);
      }
    }
});

test("a function of the scores and a window give what they do in attention to all keys", async () => {
  const shape = [1, 2, 9, 8];
  const [q, k, v] = [1, 2, 3].map((seed) => tensor(wave(2 * 9 * 8, seed), { device: tested, shape })) as [Tensor, Tensor, Tensor];
  const options = {
    window: 4,
    scores: (scores: Tensor, at: { readonly query: Tensor; readonly key: Tensor }) =>
      scores.div(3).tanh().mul(3).sub(at.query.sub(at.key).cast("f32").mul(0.1)),
  };
  const want = await attention(q, k, v, { isCausal: true, ...options }).data();
  const got = await cachedAttention(q, k, v, tensor([0], { device: tested, dtype: "i32" }), options).data();
  for (const [i, value] of want.entries()) expect(got[i]).toBeCloseTo(value, 4);
});

test("a few queries of a text give the same as one after the other", async () => {
  const c: Case = { name: "", heads: 2, kvHeads: 1, queries: 6, dim: 8, capacity: 160, positions: [125] };
  const [q, k, v] = inputs(tested, c, [0]) as [Tensor, Tensor, Tensor];
  const together = await cachedAttention(q, k, v, tensor([125], { device: tested, dtype: "i32" })).data();
  const one = compile((query: Tensor, at: Tensor) => cachedAttention(query, k, v, at));
  for (let i = 0; i < 6; i++) {
    const alone = await one(q.narrow(2, i, 1), tensor([125 + i], { device: tested, dtype: "i32" })).data();
    for (let head = 0; head < 2; head++) {
      const want = together.slice((head * 6 + i) * 8, (head * 6 + i + 1) * 8);
      for (const [j, value] of want.entries()) expect(alone[head * 8 + j]).toBeCloseTo(value, 5);
    }
  }
});

test("shapes that do not fit are a ShapeError that says them", () => {
  const of = (...shape: number[]): Tensor => tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)), { device: tested, shape });
  const at = (count: number): Tensor => tensor(new Array<number>(count).fill(0), { device: tested, dtype: "i32" });
  const attempt = (q: Tensor, k: Tensor, v: Tensor, positions: Tensor, window?: number) => () =>
    cachedAttention(q, k, v, positions, { ...(window !== undefined && { window }) });
  expect(attempt(of(1, 3, 1, 4), of(1, 2, 8, 4), of(1, 2, 8, 4), at(1))).toThrow(/do not fit/);
  expect(attempt(of(1, 2, 1, 4), of(1, 2, 8, 4), of(1, 2, 7, 4), at(1))).toThrow(ShapeError);
  expect(attempt(of(1, 2, 1, 4), of(1, 2, 8, 4), of(1, 2, 8, 4), at(2))).toThrow(/positions are i32 \[2\] for a batch of 1/);
  expect(attempt(of(1, 2, 1, 4), of(1, 2, 8, 4), of(1, 2, 8, 4), at(1), 0)).toThrow(/window is 0/);
});
