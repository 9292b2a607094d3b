import { applyBody, argument, recordBody } from "../graph/body.js";
import type { Device } from "../graph/device.js";
import type { Attributes, Node } from "../graph/node.js";
import { Tensor } from "../graph/tensor.js";
import { visibilityOf } from "../kernels/visibility.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import { type Shape, sameShape } from "../tensor/shape.js";
import { sigmoid } from "./activation.js";
import { defineComposite } from "./composite.js";
import { logsumexp as logsumexpOf, max, sum } from "./reduce.js";

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
  /**
   * What becomes of the scaled scores before softmax, element by element: a soft cap, a slope for each head and distance (FlexAttention,
   * Dong et al. 2024, `score_mod`). It is called once with scores [batch, heads, queries, keys] that have no values yet, and returns a
   * tensor of their shape, made of them, of the positions and of tensors from outside that broadcast. Kernels compute it on the way where
   * it is elementwise; a gradient that goes into tensors from outside rules out the fused kernel.
   */
  readonly scores?: (scores: Tensor, at: ScorePositions) => Tensor;
  /** Added to the scores; broadcasts to [batch, heads, queries, keys]. Rules out the fused kernel, which `scores: (s) => s.add(mask)` does not. */
  readonly mask?: Tensor;
  /**
   * The first key that each query sees, i32 [batch, queries], for texts packed one behind the other into a row, behind a prefix or none:
   * causal attention, with starts that never fall from one query to the next and lie at or before the query's own key.
   */
  readonly starts?: Tensor;
  /** A logit per head, [heads], that takes part in the softmax and has no value (Xiao et al. 2024, "attention sinks"): weights sum to less than 1. */
  readonly sinks?: Tensor;
}

/** Where each score stands, i32; each broadcasts to [batch, heads, queries, keys]. */
export interface ScorePositions {
  readonly batch: Tensor;
  readonly head: Tensor;
  readonly query: Tensor;
  readonly key: Tensor;
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

/** The inputs behind those that there always are: starts, if there are any, and what the bodies captured. */
function furtherInputs(more: readonly Tensor[], { hasStarts }: Attributes): { starts: Tensor | undefined; captures: readonly Tensor[] } {
  return { starts: hasStarts ? more[0] : undefined, captures: more.slice(hasStarts ? 1 : 0) };
}

/** [batch, kvHeads, group · queries, keys]. */
function plainScores(queries: Tensor, keys: Tensor, { scale }: Attributes): Tensor {
  return grouped(queries, keys.shape[1] ?? 1)
    .matmul(keys.transpose())
    .mul(Number(scale));
}

/** Scores of grouped heads through a body, whose own are [batch, heads, queries, keys]. */
function modified(
  scores: Tensor,
  [batch = 1, heads = 1, queryCount = 1]: Shape,
  body: Node | undefined,
  captures: readonly Tensor[],
): Tensor {
  if (!body) return scores;
  const whole = scores.reshape([batch, heads, queryCount, scores.shape[3] ?? 1]);
  return applyBody(body, [whole, ...captures]).reshape(scores.shape);
}

const attentionForward = defineComposite("attention", {
  outputs: ([queries = [], _keys, values = []]) => [
    { shape: [...queries.slice(0, 3), values[3] ?? 1], dtype: "f32" },
    { shape: queries.slice(0, 3), dtype: "f32" },
  ],
  decompose(inputs, attributes, bodies = []) {
    const [queries, keys, values, ...more] = inputs;
    if (!queries || !keys || !values) throw new Error("attention: needs queries, keys and values.");
    const { starts, captures } = furtherInputs(more, attributes);
    const plain = plainScores(queries, keys, attributes);
    const scores = masked(modified(plain, queries.shape, bodies[0], captures), queries.shape[2] ?? 1, attributes, starts);
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
  decompose(inputs, attributes, [value, slope] = []) {
    const [queries, keys, values, out, logsumexp, dOut, ...more] = inputs;
    if (!queries || !keys || !values || !out || !logsumexp || !dOut) throw new Error("attentionBackward: needs six inputs.");
    const { starts, captures } = furtherInputs(more, attributes);
    const kvHeads = keys.shape[1] ?? 1;
    const scale = Number(attributes.scale);
    const q = grouped(queries, kvHeads);
    const dO = grouped(dOut, kvHeads);
    const plain = plainScores(queries, keys, attributes);
    const scores = masked(modified(plain, queries.shape, value, captures), queries.shape[2] ?? 1, attributes, starts);
    const rowShape = [...q.shape.slice(0, 3), 1];
    const weights = scores.sub(logsumexp.reshape(rowShape)).exp();
    const delta = sum(dO.mul(grouped(out, kvHeads)), -1, { keepDims: true });
    const dModified = weights.mul(dO.matmul(values.transpose()).sub(delta)).mul(scale);
    // Where a key has no weight, the slope may be infinite.
    const dScores = slope ? weights.greater(0).where(dModified.mul(modified(plain, queries.shape, slope, captures)), 0) : dModified;
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
  const { starts, sinks, scale = 1 / Math.sqrt(headDim) } = options;
  if (sinks && !sameShape(sinks.shape, [heads]))
    throw new ShapeError(`attention: sinks are ${showShape(sinks.shape)} for ${heads} heads. Give one logit per head.`, [sinks.shape]);
  const attributes = { ...visibilityAttributes(queries, keys, options), scale };
  const inputs = [queries.cast("f32"), keys.cast("f32"), values.cast("f32")] as const;
  const own = starts ? [...inputs, starts] : inputs;
  const shape = [batch, heads, queryCount, keyCount];
  if (!options.mask) {
    if (!options.scores) return withSinks(attentionForward(own, attributes), sinks);
    const at = positionsOf(shape, queries.device);
    const recorded = recordBody(modify(argument(shape, queries.device), at, options.scores), Object.values(at));
    if (recorded) {
      const captures = recorded.captures.map((node) => new Tensor(node, queries.device));
      const told = { ...attributes, ...(captures.length > 0 && { captures: captures.length }) };
      return withSinks(attentionForward([...own, ...captures], told, [recorded.body]), sinks);
    }
  }
  const [q, k, v] = inputs;
  const plain = plainScores(q, k, attributes);
  const whole = options.scores ? modify(plain.reshape(shape), positionsOf(shape, queries.device), options.scores) : plain.reshape(shape);
  const all = (options.mask ? whole.add(options.mask) : whole).reshape(plain.shape);
  const seen = masked(all, queryCount, attributes, starts);
  const out = seen
    .softmax(-1)
    .matmul(v)
    .reshape([batch, heads, queryCount, values.shape[3] ?? 1]);
  return sinks ? withSinks([out, logsumexpOf(seen, -1).reshape([batch, heads, queryCount])], sinks) : out;
}

/** Of the weights' sum e^lse + e^sink, the share that is not the sink's: sigmoid(lse − sink). */
export function withSinks([out, logsumexp]: readonly Tensor[], sinks: Tensor | undefined): Tensor {
  if (!out || !logsumexp) throw new Error("attention: lacks a result.");
  return sinks ? out.mul(sigmoid(logsumexp.sub(sinks.reshape([1, sinks.size, 1]))).unsqueeze(3)) : out;
}

function positionsOf(shape: Shape, device: Device): ScorePositions {
  const [batch, head, query, key] = shape.map((size, axis) => {
    const own = shape.map((_, other) => (other === axis ? size : 1));
    return new Tensor({ op: "iota", axis, shape: own, dtype: "i32" }, device);
  }) as [Tensor, Tensor, Tensor, Tensor];
  return { batch, head, query, key };
}

/** Calls the function on scores [batch, heads, queries, keys]. Throws ShapeError for a result of another shape. */
export function modify(scores: Tensor, at: ScorePositions, change: NonNullable<AttentionOptions["scores"]>): Tensor {
  const result = change(scores, at);
  if (!sameShape(result.shape, scores.shape)) {
    throw new ShapeError(
      `attention: scores returned ${showShape(result.shape)} for scores ${showShape(scores.shape)}. Return a tensor of the scores' shape.`,
      [result.shape, scores.shape],
    );
  }
  return result.cast("f32");
}

/**
 * Gradients [dQueries, dKeys, dValues] of `attention` from its results `out` and `logsumexp`; what its vjp rule records. Inputs: queries,
 * keys, values, out, logsumexp, dOut, starts where there are any, and what the body of scores captured; `bodies` are that one and its slope.
 */
export function attentionBackward(inputs: readonly Tensor[], attributes: Attributes, bodies?: readonly Node[]): Tensor[] {
  return attentionBackwardComposite(inputs, attributes, bodies);
}
