import { attention, cachedAttention, concat, ShapeError, type Tensor } from "@lowrank/tensor";
import type { AttentionContext, VisiblePrefix } from "./causal-lm.js";

/**
 * Causal attention of one layer with whatever stands before its keys: a prefix, or a cache while generating. Packed rows see the
 * prefix and themselves only.
 * queries [batch, heads, seq, dim], keys and values [batch, kvHeads, seq, dim]; the queries' shape.
 */
export function attend(queries: Tensor, keys: Tensor, values: Tensor, layer: number, scale: number, context: AttentionContext): Tensor {
  const { cache, prefix, packed } = context;
  const k = prefix ? withPrefix(keys, "keys", layer, prefix) : keys;
  const v = prefix ? withPrefix(values, "values", layer, prefix) : values;
  if (cache) {
    const all = cache.append(layer, k, v);
    const positions = prefix ? cache.positions.add(prefix.length) : cache.positions;
    return cachedAttention(queries, all.keys, all.values, positions, { scale });
  }
  if (!packed) return attention(queries, k, v, { scale, isCausal: true });
  const starts = prefix ? packed.starts.add(prefix.length) : packed.starts;
  return attention(queries, k, v, { scale, isCausal: true, starts, ...(prefix && { prefix: prefix.length }) });
}

function withPrefix(x: Tensor, which: "keys" | "values", layer: number, prefix: VisiblePrefix): Tensor {
  const [batch = 1, heads = 1, , dim = 1] = x.shape;
  const own = prefix.layers[layer];
  if (!own) throw new ShapeError(`The prefix has ${prefix.layers.length} layers and the model more. Make it for this model.`);
  return concat([own[which].expand([batch, heads, prefix.length, dim]), x], 2);
}
