import { largest } from "@lowrank/tensor";
import type { GgufKey, GgufTargets } from "./description.js";
import { llamaNames, queryKeyNorms, squeezed } from "./targets.js";

/** Of a config whose layers are attention or a short convolution. */
export interface Layered {
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number | null;
}

/** Which layers have attention, by their key-value heads, and the width of the feed-forward as it is. */
export function lfm2LayerKeys<Config extends Layered>(
  hasAttention: (config: Config, layer: number) => boolean,
  innerSize: (config: Config) => number,
): GgufKey<Config> {
  return {
    read: (file) => {
      const heads = file.perLayer("attention.head_count_kv", file.layerCount());
      return {
        num_key_value_heads: largest(heads),
        layer_types: heads.map((count) => (count === 0 ? "conv" : "full_attention")),
        intermediate_size: file.count("feed_forward_length"),
        block_auto_adjust_ff_dim: false,
      };
    },
    write: (config) => {
      const heads = config.num_key_value_heads ?? config.num_attention_heads;
      const value = Array.from({ length: config.num_hidden_layers }, (_, layer) => (hasAttention(config, layer) ? heads : 0));
      return { "attention.head_count_kv": { type: "i32[]", value }, feed_forward_length: { type: "u32", value: innerSize(config) } };
    },
  };
}

/** The tensors of a layer, of either kind. */
export const lfm2Names: GgufTargets = {
  ...llamaNames,
  ...queryKeyNorms,
  operator_norm: "attn_norm",
  ffn_norm: "ffn_norm",
  "conv.conv": squeezed("shortconv.conv"),
  "conv.in_proj": "shortconv.in_proj",
  "conv.out_proj": "shortconv.out_proj",
  "self_attn.out_proj": "attn_output",
  "self_attn.q_layernorm": "attn_q_norm",
  "self_attn.k_layernorm": "attn_k_norm",
  "feed_forward.w1": "ffn_gate",
  "feed_forward.w3": "ffn_up",
  "feed_forward.w2": "ffn_down",
};
