import { attention, attentionBackward, type Device, realize, type ScorePositions, Tensor, tensor } from "@lowrank/tensor";
import { argument, recordBody } from "../src/graph/body.js";

/** Attention of some shape. */
export interface Row {
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
  /** Keys that each query sees at most, and keys in front that all see; causal. */
  readonly window?: number;
  readonly prefix?: number;
  /** What becomes of scores, and its derivative. */
  readonly scores?: (scores: Tensor, at: ScorePositions) => Tensor;
  readonly slope?: (scores: Tensor) => Tensor;
}

/** The first key that each query sees, [batch, queries]; the texts stand behind `before` keys. */
export function startsOf(lengths: readonly number[], batch: number, queries: number, before = 0): Int32Array {
  const starts = new Int32Array(batch * queries).fill(before);
  for (let row = 0; row < batch; row++) {
    let start = 0;
    for (const length of row % 2 === 0 ? lengths : [...lengths].reverse()) {
      const end = start + length;
      if (end >= queries) break;
      starts.fill(before + end, row * queries + end, (row + 1) * queries);
      start = end;
    }
  }
  return starts;
}

/** Deterministic values that differ everywhere. */
export function values(shape: readonly number[], seed: number, size = 1): Float32Array {
  const count = shape.reduce((a, b) => a * b, 1);
  return Float32Array.from({ length: count }, (_, i) => Math.sin(i * 1.7 + seed * 3.1 + i * i * 1e-3) * size);
}

/**
 * [out, logsumexp, dQueries, dKeys, dValues] on one device. Strided: operands are heads side by side in the middle of wider rows, as a
 * model's are, and so are results read.
 */
export async function run(dev: Device, row: Row, isCausal: boolean, isStrided: boolean): Promise<(ArrayLike<number> & Iterable<number>)[]> {
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
  const firsts = row.packed && startsOf(row.packed, batch, queries, keys - queries);
  const starts = firsts && tensor(firsts, { dtype: "i32", shape: [batch, queries], device: dev });
  const { window, prefix } = row;
  const out = attention(q, k, v, {
    isCausal,
    ...(starts && { starts }),
    ...(window !== undefined && { window }),
    ...(prefix !== undefined && { prefix }),
    ...(row.scores && { scores: row.scores }),
  });
  const { node } = out;
  if (node.op !== "output") throw new Error("attention is no composite");
  const { inputs, attributes, bodies = [] } = node.of;
  const further = inputs.slice(3).map((input) => new Tensor(input, dev));
  const slope = row.slope && recordBody(row.slope(argument([batch, heads, queries, keys], dev)));
  const slopes = slope ? [...bodies, slope.body] : bodies;
  const logsumexp = new Tensor({ op: "output", of: node.of, index: 1, shape: [batch, heads, queries], dtype: "f32" }, dev);
  const gradients = attentionBackward([q, k, v, out, logsumexp, dOut, ...further], attributes, slopes);
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

/** Throws where a result is not the reference's. */
export function compare(got: readonly ArrayLike<number>[], want: readonly ArrayLike<number>[], row: Row): void {
  for (const [i, name] of ["out", "logsumexp", "dQueries", "dKeys", "dValues"].entries()) {
    const exact = Array.from(want[i] ?? []);
    const result = got[i] ?? [];
    if (result.length !== exact.length) throw new Error(`${name} has ${result.length} elements instead of ${exact.length}`);
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

/** Edge shapes: ones, primes, more than a block, grouped heads. */
export const rows: Record<string, Row> = {
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

/** Several texts in one row; causal. */
export const packedRows: Record<string, Row> = {
  "one text": { heads: 2, queries: 40, dim: 8, packed: [40] },
  "texts of one token": { heads: 2, queries: 19, dim: 8, packed: [1, 1, 1, 2, 1, 5, 1] },
  "texts shorter than a panel": { heads: 3, queries: 70, dim: 12, packed: [3, 5, 7, 2, 6, 1, 7, 7, 5, 3] },
  "texts that end where panels and blocks do": { heads: 2, keyHeads: 1, queries: 256, dim: 16, packed: [8, 56, 64, 128] },
  "a few long texts": { batch: 1, heads: 4, keyHeads: 2, queries: 600, dim: 8, packed: [167, 1, 203, 130] },
  "wide values": { heads: 2, queries: 131, dim: 20, valueDim: 37, packed: [30, 61, 9] },
};

/** What hides keys in further ways: windows and prefixes, alone and with starts and with earlier keys; causal. */
export const visibilityRows: Record<string, Row> = {
  "a window of one key": { batch: 1, heads: 2, queries: 21, dim: 8, window: 1 },
  "a window shorter than a panel": { heads: 2, keyHeads: 1, queries: 70, dim: 12, window: 5 },
  "a window as long as a block": { batch: 1, heads: 2, queries: 200, dim: 16, window: 64 },
  "a window across blocks": { batch: 1, heads: 2, keyHeads: 1, queries: 230, dim: 8, window: 150 },
  "a window longer than the text": { heads: 2, queries: 33, dim: 8, window: 100 },
  "a window over a cache": { heads: 2, queries: 35, keys: 190, dim: 12, window: 41 },
  "a prefix that sees itself both ways": { heads: 2, keyHeads: 1, queries: 90, dim: 12, prefix: 37 },
  "a prefix of all keys": { batch: 1, heads: 2, queries: 40, dim: 8, prefix: 40 },
  "a prefix longer than the cache": { batch: 1, heads: 2, queries: 150, keys: 203, dim: 8, prefix: 101 },
  "a window behind a prefix": { batch: 1, heads: 2, keyHeads: 1, queries: 200, keys: 220, dim: 8, window: 30, prefix: 20 },
  "a window behind a prefix of some blocks": { batch: 1, heads: 1, queries: 300, dim: 16, window: 70, prefix: 131 },
  "texts behind a prefix": { batch: 1, heads: 2, queries: 150, keys: 157, dim: 8, packed: [3, 60, 41, 9, 37], prefix: 7 },
  "texts behind hidden keys": { heads: 2, queries: 90, keys: 200, dim: 8, packed: [30, 33, 27] },
  "windows in texts": { batch: 1, heads: 3, queries: 140, dim: 12, packed: [60, 5, 75], window: 40 },
  "windows in texts behind a prefix": {
    ...{ heads: 2, keyHeads: 1, queries: 150, keys: 183, dim: 8 },
    ...{ packed: [95, 55], window: 61, prefix: 33 },
  },
};

const capped = (s: Tensor): Tensor => s.div(1.5).tanh().mul(1.5);
const cappedSlope = (s: Tensor): Tensor => s.div(1.5).tanh().square().neg().add(1);
/** Values of a shape on the device of scores. */
const near = (s: Tensor, shape: readonly number[]): Tensor => tensor(values(shape, 11), { shape, device: s.device });

/** What becomes of scores: from themselves, from where they stand, and from captured tensors; causal. */
export const bodyRows: Record<string, Row> = {
  "a soft cap": { heads: 4, keyHeads: 2, queries: 71, dim: 20, size: 2, scores: capped, slope: cappedSlope },
  "a soft cap in a window behind a prefix": {
    ...{ batch: 1, heads: 2, keyHeads: 1, queries: 100, keys: 117, dim: 8, window: 30, prefix: 17 },
    ...{ scores: capped, slope: cappedSlope },
  },
  "a soft cap in texts": { heads: 2, queries: 70, dim: 12, packed: [30, 3, 37], scores: capped, slope: cappedSlope },
  "a slope for each head and distance": {
    ...{ heads: 3, queries: 37, keys: 50, dim: 8 },
    scores: (s, { query, key }) =>
      s.add(
        key
          .sub(query)
          .div(16)
          .mul(near(s, [3, 1, 1])),
      ),
    slope: (s) => s.mul(0).add(1),
  },
  "a factor for each query and key": {
    ...{ heads: 2, queries: 37, keys: 39, dim: 8 },
    scores: (s) => s.mul(near(s, [37, 39])),
    slope: (s) => s.mul(0).add(near(s, [37, 39])),
  },
  "a factor for each query and key of whole fours": {
    ...{ batch: 1, heads: 2, queries: 40, dim: 8 },
    scores: (s) => s.mul(near(s, [40, 40])),
    slope: (s) => s.mul(0).add(near(s, [40, 40])),
  },
  "a table by distance and head": {
    ...{ heads: 2, queries: 45, dim: 8 },
    scores: (s, { head, query, key }) => s.add(near(s, [32]).gather(query.sub(key).clamp(0, 15).mul(2).add(head))),
    slope: (s) => s.mul(0).add(1),
  },
  "what depends on the place in the batch": {
    ...{ batch: 3, heads: 2, queries: 20, dim: 8 },
    scores: (s, { batch, head, key }) => s.add(batch.add(head).add(key).mod(2).equal(0).where(0.25, -0.5)),
    slope: (s) => s.mul(0).add(1),
  },
};
