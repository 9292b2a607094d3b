import { applyBody, argument, recordBody } from "../graph/body.js";
import { Tensor } from "../graph/tensor.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import { type Shape, sameShape } from "../tensor/shape.js";
import { type AttentionOptions, modify, type ScorePositions, withSinks } from "./attention.js";
import { defineComposite } from "./composite.js";
import { logsumexp } from "./reduce.js";

/** How scores are scaled and how far back queries see. */
export interface CachedAttentionOptions {
  /** Multiplies the scores; 1/√headDim when absent. */
  readonly scale?: number;
  /** How many keys a query sees, its own included, as transformers' `sliding_window`; all up to its own when absent. */
  readonly window?: number;
  /** What becomes of the scaled scores before softmax, as for `attention`, where `query` is a query's own position. */
  readonly scores?: AttentionOptions["scores"];
  /** A logit per head that takes part in the softmax and has no value, as for `attention`. */
  readonly sinks?: Tensor;
}

/** Scaled scores [batch, heads, queries, keys]. */
function scaledScores(queries: Tensor, keys: Tensor, scale: number): Tensor {
  const [batch = 1, heads = 1, queryCount = 1, dim = 1] = queries.shape;
  const [, kvHeads = 1, keyCount = 1] = keys.shape;
  return queries
    .reshape([batch, kvHeads, (heads / kvHeads) * queryCount, dim])
    .matmul(keys.cast("f32").transpose())
    .mul(scale)
    .reshape([batch, heads, queryCount, keyCount]);
}

/** Where scores of these shapes stand, and what of it is not made of given tensors. */
function places(
  [batch = 1, heads = 1, queryCount = 1, keyCount = 1]: Shape,
  positions: Tensor,
): { readonly at: ScorePositions; readonly own: readonly Tensor[] } {
  const iota = (axis: number, sizes: readonly number[]): Tensor =>
    new Tensor({ op: "iota", axis, shape: sizes, dtype: "i32" }, positions.device);
  const own = [iota(0, [batch, 1, 1, 1]), iota(1, [1, heads, 1, 1]), iota(2, [1, 1, queryCount, 1]), iota(3, [1, 1, 1, keyCount])] as const;
  const [text, head, row, key] = own;
  return { at: { batch: text, head, query: positions.reshape([batch, 1, 1, 1]).add(row), key }, own };
}

/** [out, logsumexp] of scores [batch, heads, queries, keys] at these places. */
function weighed(scores: Tensor, values: Tensor, { query, key }: ScorePositions, window: number | undefined): Tensor[] {
  const [batch = 1, heads = 1, queryCount = 1, keyCount = 1] = scores.shape;
  const kvHeads = values.shape[1] ?? 1;
  const before = key.lessEqual(query).where(scores, Number.NEGATIVE_INFINITY);
  const seen = window === undefined ? before : key.greater(query.sub(window)).where(before, Number.NEGATIVE_INFINITY);
  const weights = seen.softmax(-1).reshape([batch, kvHeads, (heads / kvHeads) * queryCount, keyCount]);
  const out = weights.matmul(values.cast("f32")).reshape([batch, heads, queryCount, values.shape[3] ?? 1]);
  return [out, logsumexp(seen, -1).reshape([batch, heads, queryCount])];
}

const cachedAttentionComposite = defineComposite("cachedAttention", {
  outputs: ([queries = [], _keys, values = []]) => [
    { shape: [...queries.slice(0, 3), values[3] ?? 1], dtype: "f32" },
    { shape: queries.slice(0, 3), dtype: "f32" },
  ],
  decompose([queries, keys, values, positions, ...captures], { scale, window }, [body] = []) {
    if (!queries || !keys || !values || !positions) throw new Error("cachedAttention: needs queries, keys, values and positions.");
    const plain = scaledScores(queries, keys, Number(scale));
    const scores = body ? applyBody(body, [plain, ...captures]) : plain;
    return weighed(scores, values, places(plain.shape, positions).at, window === undefined ? undefined : Number(window));
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
  const [q, shape] = [queries.cast("f32"), [batch, heads, queries.shape[2] ?? 0, capacity]];
  if (sinks && !sameShape(sinks.shape, [heads]))
    throw new ShapeError(`cachedAttention: sinks are ${showShape(sinks.shape)} for ${heads} heads. Give one logit per head.`, [
      sinks.shape,
    ]);
  const attributes = { scale, ...(window !== undefined && window < capacity && { window }) };
  const own = [q, keys, values, positions];
  if (!scores) return withSinks(cachedAttentionComposite(own, attributes), sinks);
  const { at, own: made } = places(shape, positions);
  const recorded = recordBody(modify(argument(shape, queries.device), at, scores), made);
  if (!recorded) return withSinks(weighed(modify(scaledScores(q, keys, scale), at, scores), values, at, window), sinks);
  const captures = recorded.captures.map((node) => new Tensor(node, queries.device));
  const told = { ...attributes, ...(captures.length > 0 && { captures: captures.length }) };
  return withSinks(cachedAttentionComposite([...own, ...captures], told, [recorded.body]), sinks);
}
