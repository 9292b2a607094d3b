import type { GgufField, GgufKey, GgufTarget, GgufTargets } from "./description.js";
import { groupKeys } from "./experts.js";
import { counted, countedIfAny, flagged, measured, shortest } from "./keys.js";

type Json = Readonly<Record<string, unknown>>;

const u32 = (value: number): GgufField => ({ type: "u32", value });

/** Sizes of latent attention and of what routes its experts, under DeepSeek's names. */
interface LatentConfig {
  readonly num_hidden_layers: number;
  readonly vocab_size: number;
  readonly q_lora_rank: number | null;
  readonly num_attention_heads: number;
  readonly kv_lora_rank: number;
  readonly qk_nope_head_dim: number;
  readonly qk_rope_head_dim: number;
  readonly v_head_dim: number;
}

/** What no file can say; a sentence's end, or null. */
export function latentProblem({ rope_interleave: isAdjacent, attention_bias: has }: Json): string | null {
  return isAdjacent ? (has ? '"attention_bias" is true' : null) : '"rope_interleave" is false';
}

/** What norms of latent vectors add, whatever the config says (transformers' DeepseekV3RMSNorm by default). */
export const latentEpsilon = 1e-6;

/** Heads of all sizes; llama.cpp counts the latent vector as one head that all share. */
export const latentKeys: readonly GgufKey<LatentConfig & Readonly<Record<string, unknown>>>[] = [
  {
    read: (file) => {
      file.count("attention.head_count_kv", 1);
      const [keys, values, rope] = [
        file.count("attention.key_length_mla"),
        file.count("attention.value_length_mla"),
        file.count("rope.dimension_count"),
      ];
      if (rope === 0 || rope >= keys) throw file.wrong("rope.dimension_count", rope, `less than a key's ${keys}`);
      for (const key of ["attention.key_length", "attention.value_length"]) file.has(key);
      return { qk_rope_head_dim: rope, qk_nope_head_dim: keys - rope, v_head_dim: values };
    },
    write: ({ kv_lora_rank: latent, qk_nope_head_dim: plain, qk_rope_head_dim: rope, v_head_dim: values }) => ({
      "attention.head_count_kv": u32(1),
      "attention.key_length": u32(latent + rope),
      "attention.value_length": u32(latent),
      "attention.key_length_mla": u32(plain + rope),
      "attention.value_length_mla": u32(values),
    }),
  },
  countedIfAny("attention.q_lora_rank", "q_lora_rank"),
  {
    read: () => ({}),
    write: () => ({}),
    notes: (config) => {
      const { num_hidden_layers: layers, q_lora_rank: rank } = config;
      if (isLite(config) === (rank === null)) return null;
      return `"q_lora_rank" is ${rank}, and llama.cpp tells by the number of layers, ${layers}, that it is ${rank === null ? "a number" : "null"}: it loads no such file of this family.`;
    },
  },
  counted("attention.kv_lora_rank", "kv_lora_rank"),
  {
    read: () => ({}),
    write: () => ({}),
    notes: ({ rms_norm_eps: eps }) =>
      eps === latentEpsilon
        ? null
        : `"rms_norm_eps" is ${eps}. The norms of the latent vectors have ${latentEpsilon}, and in llama.cpp ${eps} too: its answers differ.`,
  },
];

/** Models whose queries llama.cpp takes for whole (deepseek2.cpp): DeepSeek-V2-Lite, GigaChat 3 and Kanana 2. */
function isLite({ num_hidden_layers: layers, vocab_size: tokens }: LatentConfig): boolean {
  return layers === 26 || layers === 27 || (layers === 48 && tokens === 128256);
}

/** Sigmoids are number 2 among the functions of llama.cpp's routers. */
const sigmoid = 2;

/** How experts are chosen in groups. */
export const groupedKeys: readonly GgufKey[] = [
  groupKeys,
  counted("expert_shared_count", "n_shared_experts"),
  counted("leading_dense_block_count", "first_k_dense_replace"),
  measured("expert_weights_scale", "routed_scaling_factor"),
  flagged("expert_weights_norm", "norm_topk_prob"),
  {
    read: (file) => {
      file.count("expert_gating_func", sigmoid);
      return {};
    },
    write: () => ({ expert_gating_func: u32(sigmoid) }),
  },
];

/** The two factors of YaRN's stretch, of which files have one. */
export const stretchKeys: GgufKey = {
  read: (file) => {
    const all = file.number("rope.scaling.yarn_log_multiplier", undefined);
    return all === undefined ? {} : { rope_parameters: { mscale: shortest(10 * all), mscale_all_dim: shortest(10 * all) } };
  },
  write: (config) => {
    const { mscale_all_dim: all } = (config["rope_scaling"] ?? config["rope_parameters"] ?? {}) as Readonly<Record<string, unknown>>;
    return { "rope.scaling.yarn_log_multiplier": typeof all === "number" && all !== 0 ? { type: "f32", value: 0.1 * all } : null };
  },
  notes: (config) => {
    const { rope_type: kind, type, mscale, mscale_all_dim: all } = (config["rope_scaling"] ?? config["rope_parameters"] ?? {}) as Json;
    if ((kind ?? type) !== "yarn" || (mscale === all && Boolean(all))) return null;
    return `YaRN's "mscale" and "mscale_all_dim" are ${mscale ?? "missing"} and ${all ?? "missing"}, and llama.cpp computes with one number for both: its answers are others.`;
  },
};

/** Projections of latent attention. */
export function latentNames(config: LatentConfig): GgufTargets {
  return {
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": keysAndValues(config),
  };
}

/** Rows of a head's keys in front of its values in the model; in the file all heads' keys, [heads, latent, dim], then all heads' values. */
function keysAndValues({
  num_attention_heads: heads,
  qk_nope_head_dim: keys,
  v_head_dim: values,
  kv_lora_rank: latent,
}: LatentConfig): GgufTarget {
  const order = (): Int32Array =>
    Int32Array.from({ length: heads * (keys + values) }, (_, i) => {
      const [head, row] = [Math.floor(i / (keys + values)), i % (keys + values)];
      return row < keys ? head * keys + row : heads * keys + head * values + row - keys;
    });
  return ({ shape }) => ({
    tensors: [
      { name: "attn_k_b.weight", shape: [heads, latent, keys] },
      { name: "attn_v_b.weight", shape: [heads, values, latent] },
    ],
    changes: [
      { kind: "axes", view: [heads, latent, keys], axes: [0, 2, 1], from: 0 },
      { kind: "units", width: latent, order: order() },
    ],
    instead: { tensors: [{ name: "attn_kv_b.weight", shape }] },
  });
}
