import { Tensor } from "../graph/tensor.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import type { AttentionOptions } from "./attention.js";
import { defineComposite } from "./composite.js";

/** How scores are scaled and how far back queries see. */
export interface CachedAttentionOptions {
  /** Multiplies the scores; 1/√headDim when absent. */
  readonly scale?: number;
  /** How many keys a query sees, its own included, as transformers' `sliding_window`; all up to its own when absent. */
  readonly window?: number;
  /** What becomes of the scaled scores before softmax, as for `attention`, where `query` is a query's own position. Rules out the kernel. */
  readonly scores?: AttentionOptions["scores"];
  /** A logit per head that takes part in the softmax and has no value, as for `attention`. Rules out the kernel. */
  readonly sinks?: Tensor;
}

/** Attention made of products, for devices and options without a kernel. */
function composed(
  queries: Tensor,
  keys: Tensor,
  values: Tensor,
  positions: Tensor,
  { scale = 1, window, scores: change, sinks }: CachedAttentionOptions,
): Tensor {
  const [batch = 1, heads = 1, queryCount = 1, dim = 1] = queries.shape;
  const [, kvHeads = 1, keyCount = 1] = keys.shape;
  const rows = [batch, kvHeads, (heads / kvHeads) * queryCount];
  const shape = [batch, heads, queryCount, keyCount];
  const scaled = queries
    .reshape([...rows, dim])
    .matmul(keys.cast("f32").transpose())
    .mul(scale)
    .reshape(shape);
  const iota = (axis: number, sizes: readonly number[]): Tensor =>
    new Tensor({ op: "iota", axis, shape: sizes, dtype: "i32" }, queries.device);
  const key = iota(3, [1, 1, 1, keyCount]);
  const query = positions.reshape([batch, 1, 1, 1]).add(iota(2, [1, 1, queryCount, 1]));
  const scores = change
    ? change(scaled, { batch: iota(0, [batch, 1, 1, 1]), head: iota(1, [1, heads, 1, 1]), query, key }).expand(shape)
    : scaled;
  const before = key.lessEqual(query).where(scores, Number.NEGATIVE_INFINITY);
  const seen = window === undefined ? before : key.greater(query.sub(window)).where(before, Number.NEGATIVE_INFINITY);
  const weights = (sinks ? softmaxWithSinks(seen, sinks.reshape([1, heads, 1, 1])) : seen.softmax(-1)).reshape([...rows, keyCount]);
  return weights.matmul(values.cast("f32")).reshape([batch, heads, queryCount, values.shape[3] ?? 1]);
}

/** e^s / (Σ e^s + e^sink) along the last axis. */
function softmaxWithSinks(scores: Tensor, sinks: Tensor): Tensor {
  const largest = scores.max(-1, { keepDims: true }).maximum(sinks);
  const weights = scores.sub(largest).exp();
  return weights.div(weights.sum(-1, { keepDims: true }).add(sinks.sub(largest).exp()));
}

const cachedAttentionComposite = defineComposite("cachedAttention", {
  outputs: ([queries = [], _keys, values = []]) => [{ shape: [...queries.slice(0, 3), values[3] ?? 1], dtype: "f32" }],
  decompose([queries, keys, values, positions], { scale, window }) {
    if (!queries || !keys || !values || !positions) throw new Error("cachedAttention: needs queries, keys, values and positions.");
    return [composed(queries, keys, values, positions, { scale: Number(scale), ...(window !== undefined && { window: Number(window) }) })];
  },
});

/**
 * Causal attention of queries at `positions` to a cache of keys and values that is filled up to them: query i of a text sees the keys 0 …
 * positions + i. queries f32 [batch, heads, queries, headDim]; keys and values [batch, kvHeads, capacity, headDim], heads a multiple of
 * kvHeads, f32 or stored in f16 or bf16; positions i32 [batch], of each text's first query. A text's results do not depend on what else is
 * in the batch, nor on the capacity. Throws ShapeError where shapes do not fit.
 */
export function cachedAttention(
  queries: Tensor,
  keys: Tensor,
  values: Tensor,
  positions: Tensor,
  options: CachedAttentionOptions = {},
): Tensor {
  const [batch = 0, heads = 0, , headDim = 0] = queries.shape;
  const [keyBatch, kvHeads = 0, capacity = 0, keyDim] = keys.shape;
  const fits = queries.rank === 4 && keys.rank === 4 && keyBatch === batch && keyDim === headDim && heads % kvHeads === 0;
  const valuesFit = values.rank === 4 && values.shape.slice(0, 3).every((size, axis) => size === keys.shape[axis]);
  if (!fits || !valuesFit) {
    throw new ShapeError(
      `cachedAttention: queries ${showShape(queries.shape)}, keys ${showShape(keys.shape)} and values ${showShape(values.shape)} do not fit. Use [batch, heads, seq, headDim] with heads a multiple of the keys' heads.`,
      [queries.shape, keys.shape, values.shape],
    );
  }
  if (positions.dtype !== "i32" || positions.rank !== 1 || positions.shape[0] !== batch) {
    throw new ShapeError(
      `cachedAttention: positions are ${positions.dtype} ${showShape(positions.shape)} for a batch of ${batch}. Give the position of each text's first query, i32 [${batch}].`,
      [positions.shape, queries.shape],
    );
  }
  const { scale = 1 / Math.sqrt(headDim), window, scores, sinks } = options;
  if (window !== undefined && !(Number.isInteger(window) && window >= 1))
    throw new ShapeError(`cachedAttention: window is ${window}. It is how many keys each query sees, a whole number of at least 1.`);
  if (scores || sinks) return composed(queries.cast("f32"), keys, values, positions, { ...options, scale });
  const attributes = { scale, ...(window !== undefined && window < capacity && { window }) };
  return cachedAttentionComposite([queries.cast("f32"), keys, values, positions], attributes)[0] as Tensor; // it has one result
}
