import { largest } from "@lowrank/tensor";
import type { RopeOptions } from "../../decoder/rope.js";
import type { GgufField, GgufKey, GgufTargets } from "./description.js";
import type { GgufReader } from "./facts.js";
import { localTheta, perLayerField } from "./gemma-layers.js";
import { shortest } from "./keys.js";

type Json = Readonly<Record<string, unknown>>;

const u32 = (value: number): GgufField => ({ type: "u32", value });
const f32 = (value: number): GgufField => ({ type: "f32", value });

/** What a layer's attention is made of. */
export interface LayerAttention {
  readonly isLocal: boolean;
  readonly headDim: number;
  readonly kvHeads: number;
  readonly inner: number;
  readonly rope: RopeOptions;
}

/** Frequencies that are divided by so much turn nothing. */
const never = 1e30;

/** Sizes that layers with a window have otherwise than those without. `at` is what a family makes of a config's layer. */
export function headKeys<Config extends { readonly num_hidden_layers: number }>(
  at: (config: Config, layer: number) => LayerAttention,
): GgufKey<Config> {
  const layersOf = (config: Config): readonly LayerAttention[] =>
    Array.from({ length: config.num_hidden_layers }, (_, layer) => at(config, layer));
  const kindsOf = (config: Config): { readonly full: LayerAttention; readonly local: LayerAttention | undefined } => {
    const layers = layersOf(config);
    // The last layer has no window.
    return { full: layers.at(-1) as LayerAttention, local: layers.find(({ isLocal }) => isLocal) };
  };
  return {
    read: headFields,
    write: (config) => {
      const { full, local = full } = kindsOf(config);
      const layers = layersOf(config);
      return {
        "attention.head_count_kv": perLayerField(layers.map(({ kvHeads }) => kvHeads)),
        feed_forward_length: perLayerField(layers.map(({ inner }) => inner)),
        "attention.key_length": u32(full.headDim),
        "attention.value_length": u32(full.headDim),
        "attention.key_length_swa": u32(local.headDim),
        "attention.value_length_swa": u32(local.headDim),
        "rope.dimension_count": u32(full.headDim),
        "rope.dimension_count_swa": u32(local.rope.dims),
        "rope.freq_base": f32(full.rope.theta),
        "rope.freq_base_swa": f32(local.rope.theta),
      };
    },
    factors: (config) => {
      const { full } = kindsOf(config);
      const { scaling } = full.rope;
      const pairs = scaling.kind === "proportional" ? scaling.pairs : full.rope.dims / 2;
      return { "rope_freqs.weight": Float32Array.from({ length: full.headDim / 2 }, (_, pair) => (pair < pairs ? 1 : never)) };
    },
    refuses: (config) => {
      const layers = layersOf(config);
      const isUsual = layers.every(({ isLocal, headDim, rope: { scaling, dims } }) =>
        isLocal ? scaling.kind === "default" && dims === headDim : scaling.kind === "proportional" && scaling.factor === 1,
      );
      if (!isUsual) return "positions are of another kind than Gemma 4's";
      const dims = new Set(layers.map(({ isLocal, headDim }) => `${isLocal} ${headDim}`));
      return dims.size === new Set(layers.map(({ isLocal }) => isLocal)).size ? null : "heads have other sizes in layers of one kind";
    },
  };
}

/** Fields of a config for heads of two sizes. */
function headFields(file: GgufReader): Json {
  const count = file.layerCount();
  const local = file.truths("attention.sliding_window_pattern", count) ?? [];
  const heads = file.perLayer("attention.head_count_kv", count);
  const inner = file.perLayer("feed_forward_length", count);
  const [headDim, ownDim] = [file.count("attention.key_length"), file.count("attention.key_length_swa", undefined)];
  for (const key of ["attention.value_length", "attention.value_length_swa", "rope.dimension_count", "rope.dimension_count_swa"])
    file.has(key);
  const [full, own] = [heads.at(-1) ?? 0, heads[local.indexOf(true)] ?? heads.at(-1) ?? 0];
  const unshared = count - file.count("attention.shared_kv_layers", 0);
  const areKeysValues = local.some((isLocal, layer) => !isLocal && layer < unshared && file.shape(`blk.${layer}.attn_v.weight`) === null);
  const told = !areKeysValues && full !== own;
  const ofLayers = local.flatMap((isLocal, layer) =>
    isLocal ? [] : [[String(layer), { head_dim: headDim, num_key_value_heads: full }] as const],
  );
  const factors = file.facts.factors.get("rope_freqs.weight");
  const pairs = factors?.filter((value) => value < never / 2).length ?? headDim / 2;
  return {
    head_dim: ownDim ?? headDim,
    global_head_dim: headDim,
    num_key_value_heads: own,
    attention_k_eq_v: areKeysValues,
    ...(areKeysValues && { num_global_key_value_heads: full }),
    ...(told && { per_layer_config: Object.fromEntries(ofLayers) }),
    intermediate_size: inner[0],
    use_double_wide_mlp: largest(inner) > (inner[0] ?? 0),
    rope_parameters: {
      full_attention: {
        rope_type: "proportional",
        rope_theta: shortest(file.number("rope.freq_base", 1e6)),
        partial_rotary_factor: (2 * pairs) / headDim,
      },
      sliding_attention: localTheta(file),
    },
  };
}

/** Experts beside the feed-forward, which some models have. */
export const branchKeys: GgufKey = {
  read: (file) => {
    const count = file.fewCount("expert_count", 0);
    if (count === 0) return {};
    return {
      enable_moe_block: true,
      num_experts: count,
      top_k_experts: file.count("expert_used_count"),
      moe_intermediate_size: file.count("expert_feed_forward_length"),
    };
  },
  write: (config) => {
    const { num_experts: count, top_k_experts: choices, moe_intermediate_size: inner } = config;
    if (!config["enable_moe_block"] || typeof count !== "number") return {};
    return {
      expert_count: u32(count),
      expert_used_count: u32(Number(choices)),
      expert_feed_forward_length: u32(Number(inner)),
    };
  },
};

/** Their parts in a layer, and its scale. */
export const branchNames: GgufTargets = {
  layer_scalar: "layer_output_scale.weight",
  "router.proj": "ffn_gate_inp",
  "router.scale": "ffn_gate_inp.scale",
  "router.per_expert_scale": "ffn_down_exps.scale",
  "experts.gate_up_proj": "ffn_gate_up_exps.weight",
  "experts.down_proj": "ffn_down_exps.weight",
  pre_feedforward_layernorm_2: "pre_ffw_norm_2",
  post_feedforward_layernorm_1: "post_ffw_norm_1",
  post_feedforward_layernorm_2: "post_ffw_norm_2",
};
