import { type GatedDeltaOptions, gatedDelta } from "../decoder/gated-delta.js";
import type { NamedPart } from "../decoder/layer.js";
import type { Mixer } from "../decoder/mixer.js";
import { count } from "../schema.js";
import { type FieldsOf, layerTypes, type RmsSizes } from "./fields.js";

/** Sizes of gated delta nets, and which layers have one, under Qwen's names. */
export interface DeltaSizes {
  readonly linear_num_key_heads: number;
  readonly linear_key_head_dim: number;
  readonly linear_num_value_heads: number;
  readonly linear_value_head_dim: number;
  readonly linear_conv_kernel_dim: number;
  readonly full_attention_interval: number;
  readonly layer_types: readonly string[] | null;
}

export const deltaFields: FieldsOf<DeltaSizes> = {
  linear_num_key_heads: count(16),
  linear_key_head_dim: count(128),
  linear_num_value_heads: count(32),
  linear_value_head_dim: count(128),
  linear_conv_kernel_dim: count(4),
  full_attention_interval: count(4),
  layer_types: layerTypes(["linear_attention", "full_attention"]),
};

/** What both families have where a file does not say. */
export const deltaSizes = { num_attention_heads: 16, head_dim: 256, max_position_embeddings: 32768 } as const;

/** Each key head serves as many value heads. */
export const deltaRules: readonly ((config: DeltaSizes) => string | null)[] = [
  ({ linear_num_key_heads: keys, linear_num_value_heads: values }) =>
    values % keys === 0 ? null : `"linear_num_value_heads" ${values} is not a multiple of "linear_num_key_heads" ${keys}`,
];

/** A layer with a gated delta net: all but every fourth, where the file does not say. */
export function isLinear({ layer_types: types, full_attention_interval: interval }: DeltaSizes, layer: number): boolean {
  return types ? types[layer] === "linear_attention" : (layer + 1) % interval !== 0;
}

/** The gated delta net of a layer: `linear_attn`. */
export function deltaNet(
  config: DeltaSizes & Pick<RmsSizes, "hidden_act" | "rms_norm_eps">,
  projections: GatedDeltaOptions["projections"],
): NamedPart<Mixer> {
  return {
    name: "linear_attn",
    part: gatedDelta({
      keyHeads: config.linear_num_key_heads,
      keyDim: config.linear_key_head_dim,
      valueHeads: config.linear_num_value_heads,
      valueDim: config.linear_value_head_dim,
      convSize: config.linear_conv_kernel_dim,
      activation: config.hidden_act,
      eps: config.rms_norm_eps,
      projections,
    }),
  };
}
