import { activationNames } from "../activation.js";
import type { RopeOptions } from "../decoder/rope.js";
import { choice, count, countOrZero, field, flag, isCount, positive } from "../schema.js";
import { type Checked, defineFamily, type Family } from "./family.js";
import { layerTypes, numberOrNull, rotary, sizes, withDefaults } from "./fields.js";
import { perLayerEmbeddings, sharedWith, unreadKeysValues } from "./gemma-layers.js";
import { geluTanh, softcap } from "./gguf/gemma.js";
import { gemmaLayerKeys, gemmaLayerNames, perLayerNames, unreadBlocks } from "./gguf/gemma-layers.js";
import { altUpKeys, altUpNames, streamNames, unreadTensors } from "./gguf/gemma3n.js";
import { biasField, counted, headDim, layerCount, rmsEpsilon } from "./gguf/keys.js";
import { ofLayerType, readRope } from "./rope.js";
import { decoderNamed, everyBias, gatedMlp, headRules, normsAround, queryKeyNorm, rmsNorm, selfAttention } from "./standard.js";

const usual = { vocab_size: 262400, num_attention_heads: 8, num_key_value_heads: 2, max_position_embeddings: 32768 };
const { hidden_act: _activation, ...own } = withDefaults(sizes, usual);
const isShare = (value: unknown): boolean => Number.isFinite(value) && (value as number) >= 0 && (value as number) < 1;

const fields = {
  ...own,
  ...rotary,
  intermediate_size: field<number | readonly number[]>("a positive integer, or one per layer", (value) =>
    Array.isArray(value) ? value.every(isCount) : isCount(value),
  ),
  head_dim: count(256),
  hidden_activation: choice(activationNames, "gelu_pytorch_tanh"),
  tie_word_embeddings: flag(true),
  attention_bias: flag(false),
  rope_local_base_freq: positive(1e4),
  sliding_window: count(512),
  layer_types: layerTypes(["sliding_attention", "full_attention"]),
  num_kv_shared_layers: countOrZero(15),
  hidden_size_per_layer_input: count(256),
  vocab_size_per_layer_input: count(262144),
  final_logit_softcapping: numberOrNull(30),
  altup_num_inputs: count(4),
  altup_active_idx: countOrZero(0),
  altup_correct_scale: flag(true),
  laurel_rank: count(64),
  activation_sparsity_pattern: field<number | readonly number[] | null>(
    "null, or a share of at least 0 and below 1 per layer",
    (value) => value === null || (Array.isArray(value) ? value.every(isShare) : isShare(value)),
    null,
  ),
};
type Config = Checked<typeof fields>;

/** Gemma 3n's text model (Google 2025): transformers' Gemma3nForCausalLM. */
export const gemma3n: Family = defineFamily({
  className: "Gemma3nForCausalLM",
  fields,
  rules: [...headRules, onePerLayer],
  prefixes: [
    ["", "model."],
    ["model.language_model.", "model."],
  ],
  remarks: ["altup_coef_clip", "altup_lr_multiplier"],
  gguf: {
    architecture: "gemma3n",
    keys: [
      layerCount("num_hidden_layers"),
      counted("context_length", "max_position_embeddings"),
      counted("embedding_length", "hidden_size"),
      counted("attention.head_count", "num_attention_heads"),
      counted("attention.head_count_kv", "num_key_value_heads"),
      headDim,
      rmsEpsilon,
      geluTanh,
      softcap("final_logit_softcapping", "never"),
      gemmaLayerKeys((config: Config, layer) => typeOf(config, layer) === "sliding_attention"),
      altUpKeys(layerWidth),
      biasField("attention_bias", "attn_q.bias", "without"),
    ],
    layer: () => ({ ...gemmaLayerNames, ...altUpNames }),
    model: (config) => ({ ...perLayerNames(config), ...streamNames(config) }),
    unread: unreadTensors,
    unpaired: /^per_layer_model_proj\.weight$|\.altup_router\.weight$/,
    ignored: unreadBlocks,
  },
  decoder: (config, path) => {
    const norm = rmsNorm(config);
    const { attention_bias: has, hidden_activation: activation } = config;
    const names = { in: "model.altup_projections", out: "model.altup_unembed_projections" };
    const { altup_num_inputs: streams, altup_active_idx: active, altup_correct_scale: isScaled } = config;
    const altUp = { count: streams, active, isScaled, names, norm };
    const told = perLayerEmbeddings(config);
    const decoder = decoderNamed(
      config,
      norm,
      (layer) => {
        const type = typeOf(config, layer);
        const isFull = type === "full_attention";
        return {
          mixer: selfAttention(config, {
            rope: ropeOf(config, path, type),
            scale: 1,
            bias: everyBias(has),
            window: isFull ? null : config.sliding_window,
            queryKeyNorm: queryKeyNorm(norm, "head"),
            valueNorm: { name: "v_norm", norm: { ...norm, weight: "none" } },
            sharesWith: sharedBy(config, layer),
          }),
          feedForward: gatedMlp(
            { intermediate_size: of(config.intermediate_size, layer), hidden_act: activation },
            { sparsity: sparsityOf(config, layer) },
          ),
          norm,
          norms: normsAround,
          altUp: { ...altUp, laurelRank: config.laurel_rank },
          ...told.layer,
        };
      },
      { embedding: { scale: Math.sqrt(config.hidden_size) }, head: { cap: config.final_logit_softcapping } },
    );
    return { ...decoder, ...told.decoder, altUp, isUnread: unreadKeysValues((layer) => sharedBy(config, layer) !== null) };
  },
});

function sharedBy(config: Config, layer: number): number | null {
  return sharedWith(layer, config.num_hidden_layers, config.num_kv_shared_layers, (other) => typeOf(config, other));
}

function of(values: number | readonly number[], layer: number): number {
  return typeof values === "number" ? values : (values[layer] ?? 0);
}

function typeOf({ layer_types: types }: Config, layer: number): "full_attention" | "sliding_attention" {
  return types?.[layer] ?? ((layer + 1) % 5 === 0 ? "full_attention" : "sliding_attention");
}

function ropeOf(config: Config, path: string, type: "full_attention" | "sliding_attention"): RopeOptions {
  const own = ofLayerType(config, type);
  const theta = type === "full_attention" ? own.rope_theta : config.rope_local_base_freq;
  return readRope({ ...own, rope_theta: theta }, path, { theta: 1e6, layerType: type });
}

/** What a layer has of its own. */
function layerWidth(config: Config, layer: number): { inner: number; sparsity: number; theta: { full: number; local: number } } {
  const theta = (type: "full_attention" | "sliding_attention"): number => ropeOf(config, "config.json", type).theta;
  return {
    inner: of(config.intermediate_size, layer),
    sparsity: sparsityOf(config, layer),
    theta: { full: theta("full_attention"), local: theta("sliding_attention") },
  };
}

/** Where the file does not say, the first ten layers of larger models. */
function sparsityOf({ activation_sparsity_pattern: pattern, num_hidden_layers: layers }: Config, layer: number): number {
  return pattern === null ? (layers > 10 && layer < 10 ? 0.95 : 0) : of(pattern, layer);
}

function onePerLayer(config: Config): string | null {
  const { num_hidden_layers: layers } = config;
  const wrong = (["intermediate_size", "activation_sparsity_pattern", "layer_types"] as const).find((name) => {
    const value = config[name];
    return Array.isArray(value) && value.length !== layers;
  });
  return wrong ? `"${wrong}" has ${(config[wrong] as readonly unknown[]).length} entries for ${layers} layers` : null;
}
