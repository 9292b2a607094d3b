import { activationNames } from "../activation.js";
import type { AttentionOptions } from "../decoder/attention.js";
import type { LayerOptions } from "../decoder/layer.js";
import { choice, count, countOrNull, field, flag, shown } from "../schema.js";
import { type Checked, defineFamily, type Family } from "./family.js";
import { layerTypes, numberOrNull, object, rotary, sizes } from "./fields.js";
import { readRope } from "./rope.js";
import { decoderNamed, gatedMlp, headRules, selfAttention } from "./standard.js";

const { hidden_act: _activation, ...own } = sizes;
const whole = field<number>("a whole number of at least 0", (value) => Number.isSafeInteger(value) && (value as number) >= 0, 0);

const fields = {
  ...own,
  ...rotary,
  head_dim: count(256),
  hidden_activation: choice(activationNames, "gelu_pytorch_tanh"),
  tie_word_embeddings: flag(true),
  attention_bias: flag(false),
  attention_k_eq_v: flag(false),
  sliding_window: count(512),
  layer_types: layerTypes(["sliding_attention", "full_attention"]),
  per_layer_config: object(),
  global_head_dim: countOrNull(),
  num_global_key_value_heads: countOrNull(),
  num_kv_shared_layers: whole,
  use_double_wide_mlp: flag(false),
  hidden_size_per_layer_input: field<number>(
    "a whole number of at least 0",
    (value) => Number.isSafeInteger(value) && (value as number) >= 0,
    256,
  ),
  vocab_size_per_layer_input: count(262144),
  final_logit_softcapping: numberOrNull(),
  use_bidirectional_attention: field<string | null>('null or "vision"', (value) => value === null || value === "vision", null),
  enable_moe_block: flag(false),
  num_experts: countOrNull(),
  top_k_experts: countOrNull(),
  moe_intermediate_size: countOrNull(),
};
type Config = Checked<typeof fields>;

/** Gemma 4's text model (Google 2026): transformers' Gemma4ForCausalLM. */
export const gemma4: Family = defineFamily({
  className: "Gemma4ForCausalLM",
  fields,
  rules: [...headRules, missingExperts],
  prefixes: [["", "model."]],
  ignored: /\.rotary_emb\./,
  decoder: (config, path) => {
    const norm = { kind: "rms", eps: config.rms_norm_eps } as const;
    const size = config.hidden_size_per_layer_input;
    const decoder = decoderNamed(config, norm, (layer) => layerOf(config, path, layer), {
      embedding: { scale: Math.sqrt(config.hidden_size) },
      head: { cap: config.final_logit_softcapping },
    });
    const names = {
      embedding: "model.embed_tokens_per_layer",
      projection: "model.per_layer_model_projection",
      norm: "model.per_layer_projection_norm",
    };
    return size === 0 ? decoder : { ...decoder, perLayer: { size, vocabSize: config.vocab_size_per_layer_input, names, norm } };
  },
});

function layerOf(config: Config, path: string, layer: number): LayerOptions {
  const norm = { kind: "rms", eps: config.rms_norm_eps } as const;
  const { hidden_activation: activation, hidden_size_per_layer_input: size } = config;
  const isShared = sharedWith(config, layer) !== null;
  const inner = config.intermediate_size * (config.use_double_wide_mlp && isShared ? 2 : 1);
  const { num_experts: experts, top_k_experts: choices, moe_intermediate_size: expertInner } = config;
  return {
    mixer: selfAttention(config, attentionOf(config, path, layer)),
    feedForward: gatedMlp({ intermediate_size: inner, hidden_act: activation }),
    norm,
    norms: {
      beforeMixer: "input_layernorm",
      afterMixer: "post_attention_layernorm",
      beforeFeedForward: "pre_feedforward_layernorm",
      afterFeedForward: "post_feedforward_layernorm",
    },
    ...(config.enable_moe_block &&
      experts &&
      choices &&
      expertInner && { experts: { count: experts, choices, inner: expertInner, activation, eps: norm.eps } }),
    ...(size > 0 && {
      perLayer: {
        size,
        activation,
        names: { gate: "per_layer_input_gate", projection: "per_layer_projection", norm: "post_per_layer_input_norm" },
        norm,
      },
    }),
    scalar: "layer_scalar",
  };
}

function attentionOf(config: Config, path: string, layer: number): Partial<AttentionOptions> & Pick<AttentionOptions, "rope"> {
  const norm = { kind: "rms", eps: config.rms_norm_eps } as const;
  const type = typeOf(config, layer);
  const isFull = type === "full_attention";
  const given = config.per_layer_config?.[String(layer)] as
    | { readonly head_dim?: number; readonly num_key_value_heads?: number }
    | undefined;
  const global = isFull && !config.per_layer_config;
  const headDim = given?.head_dim ?? (global ? (config.global_head_dim ?? 512) : config.head_dim);
  const globalHeads = global && config.attention_k_eq_v ? config.num_global_key_value_heads : null;
  const kvHeads = given?.num_key_value_heads ?? globalHeads ?? config.num_key_value_heads ?? config.num_attention_heads;
  const usual = isFull ? { theta: 1e6, partial: 0.25, kind: "proportional" as const } : { theta: 1e4 };
  const rope = readRope(config, path, { ...usual, layerType: type, isPartial: true, headDim });
  const { attention_bias: has } = config;
  return {
    rope,
    headDim,
    kvHeads,
    scale: 1,
    bias: { q: has, k: has, v: has, out: has },
    window: isFull ? null : config.sliding_window,
    queryKeyNorm: { q: "q_norm", k: "k_norm", norm, over: "head" },
    valueNorm: { name: "v_norm", norm: { ...norm, weight: "none" } },
    areKeysValues: isFull && config.attention_k_eq_v,
    sharesWith: sharedWith(config, layer),
  };
}

/** Five of six slide where the file does not say; the last sees all. */
function typeOf({ layer_types: types, num_hidden_layers: layers }: Config, layer: number): "full_attention" | "sliding_attention" {
  if (layer === layers - 1) return "full_attention";
  return types?.[layer] ?? ((layer + 1) % 6 === 0 ? "full_attention" : "sliding_attention");
}

/** The layer whose keys and values a layer sees: the last of its type before those that share. */
function sharedWith(config: Config, layer: number): number | null {
  const first = config.num_hidden_layers - config.num_kv_shared_layers;
  if (config.num_kv_shared_layers === 0 || layer < first) return null;
  for (let before = first - 1; before >= 0; before--) if (typeOf(config, before) === typeOf(config, layer)) return before;
  return null;
}

function missingExperts(config: Config): string | null {
  if (!config.enable_moe_block) return null;
  const missing = (["num_experts", "top_k_experts", "moe_intermediate_size"] as const).find((name) => config[name] === null);
  return missing ? `"enable_moe_block" is true and "${missing}" is ${shown(config[missing])}` : null;
}
