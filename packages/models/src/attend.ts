import { attention, concat, type Tensor } from "@lowrank/tensor";
import type { AttentionContext } from "./causal-lm.js";
import type { KeyValuePrefix } from "./virtual-tokens.js";

/**
 * Causal attention of one layer with whatever stands before its keys: a prefix, or a cache while generating.
 * queries [batch, heads, seq, dim], keys and values [batch, kvHeads, seq, dim]; the queries' shape.
 */
export function attend(queries: Tensor, keys: Tensor, values: Tensor, layer: number, scale: number, context: AttentionContext): Tensor {
  const { cache, prefix } = context;
  if (cache?.positions) {
    const seen = cache.append(layer, keys, values);
    return attention(queries, seen.keys, seen.values, { scale, mask: seen.mask });
  }
  const k = prefix ? withPrefix(keys, "keys", layer, prefix) : keys;
  const v = prefix ? withPrefix(values, "values", layer, prefix) : values;
  cache?.fill(layer, k, v);
  return attention(queries, k, v, { scale, isCausal: true });
}

function withPrefix(x: Tensor, which: "keys" | "values", layer: number, prefix: KeyValuePrefix): Tensor {
  const [batch = 1, heads = 1, , dim = 1] = x.shape;
  return concat([prefix.at(layer)[which].expand([batch, heads, prefix.length, dim]), x], 2);
}
