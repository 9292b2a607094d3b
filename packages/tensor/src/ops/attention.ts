import type { Attributes } from "../graph/node.js";
import { visibilityOf } from "../kernels/visibility.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import type { Shape } from "../tensor/shape.js";
import { Tensor } from "../tensor/tensor.js";
import { defineComposite } from "./composite.js";
import { max, sum } from "./reduce.js";

/** What attention may see and how scores are scaled. */
export interface AttentionOptions {
  /** Query i sees keys 0 … i + (keys − queries): the last query is aligned with the last key. */
  readonly isCausal?: boolean;
  /** Of these, at most so many that each query sees, itself included, as transformers' `sliding_window`. Causal attention only. */
  readonly window?: number;
  /** Keys in front that every query sees, whatever else hides keys from it: a prefix, or a text that sees itself both ways. */
  readonly prefix?: number;
  /** Multiplies the scores; 1/√headDim when absent. */
  readonly scale?: number;
  /** Added to the scores; broadcasts to [batch, heads, queries, keys]. Rules out the fused kernel. */
  readonly mask?: Tensor;
  /**
   * The first key that each query sees, i32 [batch, queries], for texts packed one behind the other into a row, behind a prefix or none:
   * causal attention, with starts that never fall from one query to the next and lie at or before the query's own key.
   */
  readonly starts?: Tensor;
}

/** Scores [batch, kvHeads, group · queries, keys] → the same with keys that a query does not see at −∞ (kernels/visibility.ts). */
function masked(scores: Tensor, queryCount: number, attributes: Attributes, starts?: Tensor): Tensor {
  const [batch = 1, kvHeads = 1, rows = 1, keyCount = 1] = scores.shape;
  const { lastOffset, firstOffset, prefix } = visibilityOf(attributes, queryCount, keyCount);
  if (lastOffset === null) return scores;
  const shape = [batch, kvHeads, rows / queryCount, queryCount, keyCount];
  const key = new Tensor({ op: "iota", axis: 4, shape, dtype: "i32" }, scores.device);
  const query = new Tensor({ op: "iota", axis: 3, shape, dtype: "i32" }, scores.device);
  const conditions = [key.lessEqual(query.add(lastOffset))];
  if (firstOffset !== null) conditions.push(key.greaterEqual(query.add(firstOffset)));
  if (starts) conditions.push(key.greaterEqual(starts.reshape([batch, 1, 1, queryCount, 1])));
  const all = scores.reshape(shape);
  const seen = conditions.reduce((rest, condition) => condition.where(rest, Number.NEGATIVE_INFINITY), all);
  return (prefix > 0 ? key.less(prefix).where(all, seen) : seen).reshape(scores.shape);
}

/** Query heads that share a key head lie side by side: [batch, heads, queries, dim] → [batch, kvHeads, group · queries, dim]. */
function grouped(x: Tensor, kvHeads: number): Tensor {
  const [batch = 1, heads = 1, length = 1, width = 1] = x.shape;
  return x.reshape([batch, kvHeads, (heads / kvHeads) * length, width]);
}

const attentionForward = defineComposite("attention", {
  outputs: ([queries = [], _keys, values = []]) => [
    { shape: [...queries.slice(0, 3), values[3] ?? 1], dtype: "f32" },
    { shape: queries.slice(0, 3), dtype: "f32" },
  ],
  decompose([queries, keys, values, starts], attributes) {
    if (!queries || !keys || !values) throw new Error("attention: needs queries, keys and values.");
    const kvHeads = keys.shape[1] ?? 1;
    const scores = masked(
      grouped(queries, kvHeads).matmul(keys.transpose()).mul(Number(attributes.scale)),
      queries.shape[2] ?? 1,
      attributes,
      starts,
    );
    const largest = max(scores, -1, { keepDims: true }).detach();
    const weights = scores.sub(largest).exp();
    const total = sum(weights, -1, { keepDims: true });
    const out = weights.div(total).matmul(values);
    const logsumexp = total.log().add(largest);
    return [out.reshape([...queries.shape.slice(0, 3), values.shape[3] ?? 1]), logsumexp.reshape(queries.shape.slice(0, 3))];
  },
});

const attentionBackwardComposite = defineComposite("attentionBackward", {
  outputs: ([queries = [], keys = [], values = []]) => [queries, keys, values].map((shape: Shape) => ({ shape, dtype: "f32" as const })),
  decompose([queries, keys, values, out, logsumexp, dOut, starts], attributes) {
    if (!queries || !keys || !values || !out || !logsumexp || !dOut) throw new Error("attentionBackward: needs six inputs.");
    const kvHeads = keys.shape[1] ?? 1;
    const scale = Number(attributes.scale);
    const q = grouped(queries, kvHeads);
    const dO = grouped(dOut, kvHeads);
    const scores = masked(q.matmul(keys.transpose()).mul(scale), queries.shape[2] ?? 1, attributes, starts);
    const rowShape = [...q.shape.slice(0, 3), 1];
    const weights = scores.sub(logsumexp.reshape(rowShape)).exp();
    const delta = sum(dO.mul(grouped(out, kvHeads)), -1, { keepDims: true });
    const dScores = weights.mul(dO.matmul(values.transpose()).sub(delta)).mul(scale);
    return [dScores.matmul(keys).reshape(queries.shape), dScores.transpose().matmul(q), weights.transpose().matmul(dO)];
  },
});

/** What the kernels are told of visibility, with nothing that hides no key; throws ShapeError for options that do not fit. */
function visibilityAttributes(queries: Tensor, keys: Tensor, options: AttentionOptions): Attributes {
  const { isCausal = false, window, prefix = 0, starts } = options;
  const [batch, , queryCount = 0] = queries.shape;
  const keyCount = keys.shape[2] ?? 0;
  const shapes = [queries.shape, keys.shape];
  if (isCausal && keyCount < queryCount) {
    throw new ShapeError(`attention: causal attention of ${queryCount} queries needs at least as many keys, got ${keyCount}.`, shapes);
  }
  if (window !== undefined && !(isCausal && Number.isInteger(window) && window >= 1)) {
    throw new ShapeError(
      `attention: window is ${window}${isCausal ? "" : " and attention is not causal"}. It is how many keys each query of causal attention sees, a whole number of at least 1.`,
      shapes,
    );
  }
  if (!(Number.isInteger(prefix) && prefix >= 0 && prefix <= keyCount)) {
    throw new ShapeError(`attention: prefix is ${prefix}. It is how many of the ${keyCount} keys every query sees.`, shapes);
  }
  const areStarts = starts?.dtype === "i32" && starts.rank === 2 && starts.shape[0] === batch && starts.shape[1] === queryCount;
  if (starts && !(isCausal && areStarts)) {
    throw new ShapeError(
      `attention: starts are i32 [batch, queries] for causal attention, got ${starts.dtype} ${showShape(starts.shape)} for queries ${showShape(queries.shape)}${isCausal ? "" : ", not causal"}. Give the index of the first key that each query sees.`,
      [starts.shape, ...shapes],
    );
  }
  const isWindowed = window !== undefined && window < keyCount;
  // Without a window and starts, the first query sees as many keys already.
  const isPrefixed = isCausal && prefix > (isWindowed || starts ? 0 : keyCount - queryCount + 1);
  return { isCausal, ...(isWindowed && { window }), ...(isPrefixed && { prefix }), ...(starts && { hasStarts: true }) };
}

/**
 * softmax(q kᵀ · scale + mask) v (Vaswani et al. 2017), with grouped-query heads (Ainslie et al. 2023).
 * queries [batch, heads, queries, headDim], keys and values [batch, kvHeads, keys, headDim], heads a multiple of kvHeads; f32.
 * torch.nn.functional.scaled_dot_product_attention(enable_gqa=True).
 */
export function attention(queries: Tensor, keys: Tensor, values: Tensor, options: AttentionOptions = {}): Tensor {
  const [batch = 0, heads = 0, queryCount = 0, headDim = 0] = queries.shape;
  const [keyBatch, kvHeads = 0, keyCount = 0, keyDim] = keys.shape;
  const fits =
    queries.rank === 4 && keys.rank === 4 && values.rank === 4 && keyBatch === batch && heads % kvHeads === 0 && keyDim === headDim;
  if (!fits || values.shape[0] !== batch || values.shape[1] !== kvHeads || values.shape[2] !== keyCount) {
    throw new ShapeError(
      `attention: queries ${showShape(queries.shape)}, keys ${showShape(keys.shape)} and values ${showShape(values.shape)} do not fit. Use [batch, heads, seq, headDim] with heads a multiple of the keys' heads.`,
      [queries.shape, keys.shape, values.shape],
    );
  }
  const { starts, scale = 1 / Math.sqrt(headDim) } = options;
  const attributes = { ...visibilityAttributes(queries, keys, options), scale };
  const inputs = [queries.cast("f32"), keys.cast("f32"), values.cast("f32")] as const;
  if (!options.mask) return attentionForward(starts ? [...inputs, starts] : inputs, attributes)[0] as Tensor;
  const [q, k, v] = inputs;
  const scores = grouped(q, kvHeads).matmul(k.transpose()).mul(scale).reshape([batch, heads, queryCount, keyCount]);
  const seen = masked(
    scores.add(options.mask).reshape([batch, kvHeads, (heads / kvHeads) * queryCount, keyCount]),
    queryCount,
    attributes,
    starts,
  );
  return seen
    .softmax(-1)
    .matmul(v)
    .reshape([batch, heads, queryCount, values.shape[3] ?? 1]);
}

/**
 * Gradients [dQueries, dKeys, dValues] of `attention` from its results `out` and `logsumexp`; what its vjp rule records. Inputs: queries,
 * keys, values, out, logsumexp, dOut, and starts where there are any.
 */
export function attentionBackward(inputs: readonly Tensor[], attributes: Attributes): Tensor[] {
  return attentionBackwardComposite(inputs, attributes);
}
