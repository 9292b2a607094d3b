import type { DecoderOptions } from "../decoder/decoder.js";
import type { FeedForward } from "../decoder/feed-forward.js";
import { type GatedDeltaOptions, gatedDelta } from "../decoder/gated-delta.js";
import type { NamedPart } from "../decoder/layer.js";
import type { Mixer } from "../decoder/mixer.js";
import type { RopeOptions } from "../decoder/rope.js";
import { count, flag } from "../schema.js";
import { type FieldsOf, layerTypes, type RmsSizes, rotary, sizes, withDefaults } from "./fields.js";
import { mixture } from "./mixture.js";
import { contextOf, type RotaryConfig, readRope } from "./rope.js";
import { decoderNamed, everyBias, normsInFront, queryKeyNorm, rmsNorm, selfAttention } from "./standard.js";

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

const netFields: FieldsOf<DeltaSizes> = {
  linear_num_key_heads: count(16),
  linear_key_head_dim: count(128),
  linear_num_value_heads: count(32),
  linear_value_head_dim: count(128),
  linear_conv_kernel_dim: count(4),
  full_attention_interval: count(4),
  layer_types: layerTypes(["linear_attention", "full_attention"]),
};

/** A model of such layers: gated attention in some, gated delta nets in the others. */
export interface DeltaConfig extends DeltaSizes, Omit<RmsSizes, "intermediate_size">, RotaryConfig {
  readonly head_dim: number;
  readonly attention_bias: boolean;
}

/** Fields of such a model, with a family's own vocabulary and heads where a file does not say. */
export function deltaFields(own: {
  readonly vocab_size: number;
  readonly num_key_value_heads: number;
}): FieldsOf<DeltaConfig & Pick<RmsSizes, "intermediate_size">> {
  const usual = { num_attention_heads: 16, max_position_embeddings: 32768, ...own };
  return { ...withDefaults(sizes, usual), head_dim: count(256), ...rotary, ...netFields, attention_bias: flag(false) };
}

/** Each key head serves as many value heads. */
export const deltaRules: readonly ((config: DeltaSizes) => string | null)[] = [
  ({ linear_num_key_heads: keys, linear_num_value_heads: values }) =>
    values % keys === 0 ? null : `"linear_num_value_heads" ${values} is not a multiple of "linear_num_key_heads" ${keys}`,
];

/** A layer with a gated delta net: all but every fourth, where the file does not say. */
export function isLinear({ layer_types: types, full_attention_interval: interval }: DeltaSizes, layer: number): boolean {
  return types ? types[layer] === "linear_attention" : (layer + 1) % interval !== 0;
}

/** A quarter of each head turns where the file does not say. */
export const quarterRope = (config: RotaryConfig, path: string): RopeOptions => readRope(config, path, { isPartial: true, partial: 0.25 });

/** The decoder of such a model, with norms of 1 + w and gated attention. `feedForward`: each layer's. */
export function deltaDecoder(
  config: DeltaConfig,
  path: string,
  projections: GatedDeltaOptions["projections"],
  feedForward: (layer: number) => NamedPart<FeedForward>,
): DecoderOptions {
  const rope = quarterRope(config, path);
  const norm = { ...rmsNorm(config), weight: "1 + w" } as const;
  const own = { rope, isGated: true, bias: everyBias(config.attention_bias), queryKeyNorm: queryKeyNorm(norm, "head") };
  const [attention, net] = [selfAttention(config, own), deltaNet(config, projections)];
  const layer = (index: number) => ({
    mixer: isLinear(config, index) ? net : attention,
    feedForward: feedForward(index),
    norm,
    norms: normsInFront,
  });
  return decoderNamed(config, norm, layer, { contextLength: contextOf(config, rope) });
}

/** Experts as these models have them, and one that every token goes through, with a gate. */
export interface GatedExperts {
  readonly num_experts: number;
  readonly num_experts_per_tok: number;
  readonly moe_intermediate_size: number;
  readonly shared_expert_intermediate_size: number;
}

/** `more`: how the chosen ones are weighed, and how checkpoints hold them, where that is another way than Qwen3 MoE's. */
export function gatedExperts(
  config: GatedExperts & Pick<RmsSizes, "hidden_act">,
  more: Pick<Parameters<typeof mixture>[0], "isNormalized" | "stored">,
): NamedPart<FeedForward> {
  const { hidden_act: activation } = config;
  const names = { gate: "gate_proj", up: "up_proj", down: "down_proj" };
  const options = { inner: config.shared_expert_intermediate_size, activation, names };
  return mixture({
    count: config.num_experts,
    choices: config.num_experts_per_tok,
    inner: config.moe_intermediate_size,
    activation,
    shared: { name: "shared_expert", gate: "shared_expert_gate", options },
    ...more,
  });
}

/** The gated delta net of a layer: `linear_attn`. */
function deltaNet(
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
