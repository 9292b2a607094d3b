import { attention, cachedAttention, concat, ShapeError, type Tensor } from "@lowrank/tensor";
import type { AttentionContext, VisiblePrefix } from "./causal-lm.js";

/** What one layer does to its scores, and what it sees. */
export interface AttendOptions {
  /** The layer's number: its place in a prefix and in a cache. */
  readonly layer: number;
  /** True where keys and values are another layer's, which is `layer`: its cache has them already. */
  readonly isShared?: boolean;
  readonly scale: number;
  /** How many keys a query sees, its own included; null for all. */
  readonly window: number | null;
  /** Scores s become cap · tanh(s / cap). */
  readonly cap: number | null;
  /** A logit a head, [heads], that takes part in the softmax and has no value. */
  readonly sinks: Tensor | null;
}

/**
 * Causal attention of one layer with whatever stands before its keys: a prefix, or a cache while generating. Packed rows see the
 * prefix and themselves only. A window hides a prefix as it hides tokens, which it cannot where rows are packed: that throws ShapeError.
 * queries [batch, heads, seq, dim], keys and values [batch, kvHeads, seq, dim]; the queries' shape.
 */
export function attend(queries: Tensor, keys: Tensor, values: Tensor, options: AttendOptions, context: AttentionContext): Tensor {
  const { layer, isShared = false, scale, window, cap, sinks } = options;
  const { cache, prefix, packed } = context;
  const k = prefix ? withPrefix(keys, "keys", layer, prefix) : keys;
  const v = prefix ? withPrefix(values, "values", layer, prefix) : values;
  const shared = {
    scale,
    ...(window !== null && { window }),
    ...(sinks && { sinks: sinks.cast("f32") }),
    ...(cap !== null && { scores: (scores: Tensor): Tensor => scores.div(cap).tanh().mul(cap) }),
  };
  if (cache) {
    const all = isShared ? cache.keysValues(layer) : cache.append(layer, k, v);
    const positions = prefix ? cache.positions.add(prefix.length) : cache.positions;
    return cachedAttention(queries, all.keys, all.values, positions, shared);
  }
  const starts = packed && (prefix ? packed.starts.add(prefix.length) : packed.starts);
  if (packed && prefix && window !== null)
    throw new ShapeError("Packed rows with a prefix have no place for a window. Use a row of the batch for each.");
  const seen = packed && prefix ? { prefix: prefix.length } : {};
  return attention(queries, k, v, { ...shared, ...seen, isCausal: true, ...(starts && { starts }) });
}

function withPrefix(x: Tensor, which: "keys" | "values", layer: number, prefix: VisiblePrefix): Tensor {
  const [batch = 1, heads = 1, , dim = 1] = x.shape;
  const own = prefix.layers[layer];
  if (!own) throw new ShapeError(`The prefix has ${prefix.layers.length} layers and the model more. Make it for this model.`);
  return concat([own[which].expand([batch, heads, prefix.length, dim]), x], 2);
}
