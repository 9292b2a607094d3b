import { activationNames } from "../activation.js";
import type { AttentionOptions } from "../decoder/attention.js";
import type { LayerOptions } from "../decoder/layer.js";
import type { RopeOptions } from "../decoder/rope.js";
import { choice, count, countOrNull, countOrZero, field, flag, isCount, shown } from "../schema.js";
import { type Checked, defineFamily, type Family } from "./family.js";
import { layerTypes, numberOrNull, rotary, sizes, withDefaults } from "./fields.js";
import { perLayerEmbeddings, sharedWith, unreadKeysValues } from "./gemma-layers.js";
import { geluTanh, softcap } from "./gguf/gemma.js";
import { gemmaLayerKeys, gemmaLayerNames, perLayerNames, unreadBlocks } from "./gguf/gemma-layers.js";
import { branchKeys, branchNames, headKeys, type LayerAttention } from "./gguf/gemma4.js";
import { biasField, counted, layerCount, rmsEpsilon } from "./gguf/keys.js";
import { readRope } from "./rope.js";
import {
  decoderNamed,
  everyBias,
  gatedMlp,
  headRules,
  normsAround,
  queryKeyNorm,
  rmsNorm,
  selfAttention,
  typePerLayer,
} from "./standard.js";

const usual = { vocab_size: 262144, num_attention_heads: 8, num_key_value_heads: 4, max_position_embeddings: 131072 };
const { hidden_act: _activation, ...own } = withDefaults(sizes, usual);

/** Where a file has none. */
const usualRope = {
  full_attention: { rope_type: "proportional", partial_rotary_factor: 0.25, rope_theta: 1e6 },
  sliding_attention: { rope_type: "default", rope_theta: 1e4 },
};

/** What single layers may have of their own. */
type LayerFields = { readonly head_dim?: number; readonly num_key_value_heads?: number };
const layerFields = ["head_dim", "num_key_value_heads"];
const isLayerFields = (value: unknown): boolean =>
  typeof value === "object" && value !== null && Object.entries(value).every(([name, own]) => layerFields.includes(name) && isCount(own));

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
  per_layer_config: field<Readonly<Record<string, LayerFields>> | null>(
    '"head_dim" and "num_key_value_heads" by layer, the only ones that are supported',
    (value) =>
      value === null ||
      (typeof value === "object" &&
        !Array.isArray(value) &&
        Object.entries(value as object).every(([layer, own]) => /^\d+$/.test(layer) && isLayerFields(own))),
    null,
  ),
  global_head_dim: countOrNull(),
  num_global_key_value_heads: countOrNull(),
  num_kv_shared_layers: countOrZero(0),
  use_double_wide_mlp: flag(false),
  hidden_size_per_layer_input: countOrZero(256),
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
  rules: [...headRules, typePerLayer, missingExperts],
  prefixes: [["", "model."]],
  ignored: /\.rotary_emb\./,
  gguf: {
    architecture: "gemma4",
    keys: [
      layerCount("num_hidden_layers"),
      counted("context_length", "max_position_embeddings"),
      counted("embedding_length", "hidden_size"),
      counted("attention.head_count", "num_attention_heads"),
      rmsEpsilon,
      geluTanh,
      softcap("final_logit_softcapping", "zero"),
      gemmaLayerKeys((config: Config, layer) => typeOf(config, layer) === "sliding_attention"),
      headKeys(layerSizes),
      branchKeys,
      biasField("attention_bias", "attn_q.bias", "without"),
    ],
    layer: () => ({ ...gemmaLayerNames, ...branchNames }),
    model: perLayerNames,
    unpaired: /^per_layer_model_proj\.weight$/,
    ignored: unreadBlocks,
  },
  decoder: (config, path) => {
    const told = perLayerEmbeddings(config);
    const decoder = decoderNamed(config, rmsNorm(config), (layer) => ({ ...layerOf(config, path, layer), ...told.layer }), {
      embedding: { scale: Math.sqrt(config.hidden_size) },
      head: { cap: config.final_logit_softcapping },
    });
    return { ...decoder, ...told.decoder, isUnread: unreadKeysValues((layer) => sharedBy(config, layer) !== null) };
  },
});

function layerOf(config: Config, path: string, layer: number): LayerOptions {
  const { hidden_activation: activation, rms_norm_eps: eps } = config;
  const { num_experts: number, top_k_experts: choices, moe_intermediate_size: expertInner } = config;
  const hasExperts = config.enable_moe_block && number && choices && expertInner;
  return {
    mixer: selfAttention(config, attentionOf(config, path, layer)),
    feedForward: gatedMlp({ intermediate_size: innerOf(config, layer), hidden_act: activation }),
    norm: rmsNorm(config),
    norms: normsAround,
    ...(hasExperts && { experts: { count: number, choices, inner: expertInner, activation, eps } }),
    scalar: "layer_scalar",
  };
}

function innerOf(config: Config, layer: number): number {
  return config.intermediate_size * (config.use_double_wide_mlp && sharedBy(config, layer) !== null ? 2 : 1);
}

function attentionOf(config: Config, path: string, layer: number): Partial<AttentionOptions> & Pick<AttentionOptions, "rope"> {
  const norm = rmsNorm(config);
  const type = typeOf(config, layer);
  const isFull = type === "full_attention";
  // transformers writes the layers' numbers with leading zeros.
  const [, given] = Object.entries(config.per_layer_config ?? {}).find(([number]) => Number(number) === layer) ?? [];
  const global = isFull && !config.per_layer_config;
  const headDim = given?.head_dim ?? (global ? (config.global_head_dim ?? 512) : config.head_dim);
  const globalHeads = global && config.attention_k_eq_v ? config.num_global_key_value_heads : null;
  const kvHeads = given?.num_key_value_heads ?? globalHeads ?? config.num_key_value_heads ?? config.num_attention_heads;
  const rope = readRope(config, path, { absent: usualRope, layerType: type, isPartial: true, headDim });
  const { attention_bias: has } = config;
  return {
    rope,
    headDim,
    kvHeads,
    scale: 1,
    bias: everyBias(has),
    window: isFull ? null : config.sliding_window,
    queryKeyNorm: queryKeyNorm(norm, "head"),
    valueNorm: { name: "v_norm", norm: { ...norm, weight: "none" } },
    areKeysValues: isFull && config.attention_k_eq_v,
    sharesWith: sharedBy(config, layer),
  };
}

/** What a layer has of its own. */
function layerSizes(config: Config, layer: number): LayerAttention {
  const { rope, headDim, kvHeads } = attentionOf(config, "config.json", layer);
  return {
    isLocal: typeOf(config, layer) === "sliding_attention",
    headDim: headDim ?? config.head_dim,
    kvHeads: kvHeads ?? config.num_attention_heads,
    inner: innerOf(config, layer),
    rope: rope as RopeOptions,
  };
}

/** Five of six slide where the file does not say; the last sees all. */
function typeOf({ layer_types: types, num_hidden_layers: layers }: Config, layer: number): "full_attention" | "sliding_attention" {
  if (layer === layers - 1) return "full_attention";
  return types?.[layer] ?? ((layer + 1) % 6 === 0 ? "full_attention" : "sliding_attention");
}

function sharedBy(config: Config, layer: number): number | null {
  return sharedWith(layer, config.num_hidden_layers, config.num_kv_shared_layers, (other) => typeOf(config, other));
}

function missingExperts(config: Config): string | null {
  if (!config.enable_moe_block) return null;
  const missing = (["num_experts", "top_k_experts", "moe_intermediate_size"] as const).find((name) => config[name] === null);
  return missing ? `"enable_moe_block" is true and "${missing}" is ${shown(config[missing])}` : null;
}
