import { largest } from "@lowrank/tensor";
import type { GgufField, GgufKey, GgufTargets } from "./description.js";
import { flagged, measured, shortest } from "./keys.js";
import { mambaNames } from "./mamba.js";
import { neighbours } from "./targets.js";

const u32 = (value: number): GgufField => ({ type: "u32", value });

/** What Nemotron-H's layers are filed by; of each of them there is one mixer. */
interface LayerConfig {
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number | null;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly moe_intermediate_size: number;
  readonly n_groups: number;
}

/** The architecture with experts has a name of its own. */
export const nemotronNames = ["nemotron_h", "nemotron_h_moe"] as const;

/** What a layer's tensors say that it is. */
const signs = { mamba: "ssm_a", moe: "ffn_gate_inp.weight", attention: "attn_q.weight", mlp: "ffn_up.weight" } as const;

/** What files have of positions, though there are none, and of experts where there are none either. */
const unreadKeys = [
  "rope.dimension_count",
  "rope.scaling.finetuned",
  "expert_count",
  "expert_used_count",
  "expert_group_count",
  "expert_group_used_count",
];

/** The layers' kinds: none is said but by heads and widths of 0. */
export function layerKindKeys<Config extends LayerConfig>(typesOf: (config: Config) => readonly string[]): GgufKey<Config> {
  return {
    read: (file) => {
      const count = file.layerCount();
      const types = Array.from({ length: count }, (_, layer) => {
        const [found] = Object.entries(signs).flatMap(([type, name]) => (file.shape(`blk.${layer}.${name}`) ? [type] : []));
        if (found) return found;
        throw file.error(`layer ${layer} has neither a Mamba, attention, experts nor a feed-forward.`, "Fetch the file again.");
      });
      for (const key of unreadKeys) file.has(key);
      return {
        layers_block_type: types,
        num_key_value_heads: largest(file.perLayer("attention.head_count_kv", count)) || undefined,
        intermediate_size: largest(file.perLayer("feed_forward_length", count)) || 1,
      };
    },
    write: (config) => {
      const types = typesOf(config);
      const heads = config.num_key_value_heads ?? config.num_attention_heads;
      const [isAttention, hasExperts] = [(type: string) => type === "attention" || type === "full_attention", types.includes("moe")];
      const [kind, width] = hasExperts ? ["moe", config.moe_intermediate_size] : ["mlp", config.intermediate_size];
      return {
        block_count: u32(types.length),
        "attention.head_count_kv": { type: "i32[]", value: types.map((type) => (isAttention(type) ? heads : 0)) },
        feed_forward_length: { type: "i32[]", value: types.map((type) => (type === kind ? width : 0)) },
        "rope.dimension_count": u32(config.hidden_size / config.num_attention_heads),
        "rope.scaling.finetuned": { type: "bool", value: false },
      };
    },
    refuses: (config) => {
      const types = typesOf(config);
      return types.includes("moe") && types.includes("mlp") ? "layers with experts stand among others with one feed-forward" : null;
    },
  };
}

/** What norms add, under the names of both kinds of norms. */
export const nemotronEpsilon: GgufKey<{ readonly layer_norm_epsilon: number }> = {
  read: (file) => {
    const other = file.number("attention.layer_norm_epsilon", undefined);
    const value = other ?? file.number("attention.layer_norm_rms_epsilon");
    file.has("attention.layer_norm_rms_epsilon");
    return { layer_norm_epsilon: shortest(value) };
  },
  write: ({ layer_norm_epsilon: value }) => ({
    "attention.layer_norm_epsilon": { type: "f32", value },
    "attention.layer_norm_rms_epsilon": { type: "f32", value },
  }),
};

/** Experts, where there are any. */
export function nemotronExperts<Config>(
  hasExperts: (config: Config) => boolean,
  keys: readonly GgufKey<Config>[],
): readonly GgufKey<Config>[] {
  return keys.map((key) => ({
    read: (file) => (file.architecture === "nemotron_h_moe" ? key.read(file) : {}),
    write: (config) => (hasExperts(config) ? key.write(config) : {}),
  }));
}

/** How they are chosen. */
export const choiceKeys: readonly GgufKey[] = [
  measured("expert_weights_scale", "routed_scaling_factor"),
  flagged("expert_weights_norm", "norm_topk_prob"),
];

/** The parts of a layer, all of them below its mixer. Queries and keys are moved as Llama's, though nothing turns. */
export function nemotronLayer(config: LayerConfig): GgufTargets {
  const turned = Object.entries(neighbours(config)).map(([name, target]) => [name.replace("self_attn.", "mixer."), target] as const);
  return {
    norm: "attn_norm",
    ...mambaNames("mixer", config.n_groups),
    ...Object.fromEntries(turned),
    "mixer.v_proj": "attn_v",
    "mixer.o_proj": "attn_output",
    "mixer.up_proj": "ffn_up",
    "mixer.down_proj": "ffn_down",
    "mixer.gate": "ffn_gate_inp",
    "mixer.gate.e_score_correction_bias": "exp_probs_b.bias",
    "mixer.experts.up_proj": "ffn_up_exps.weight",
    "mixer.experts.down_proj": "ffn_down_exps.weight",
    "mixer.shared_experts.up_proj": "ffn_up_shexp",
    "mixer.shared_experts.down_proj": "ffn_down_shexp",
  };
}
