import { activationNames } from "../activation.js";
import { attention } from "../decoder/attention.js";
import { feedForward } from "../decoder/feed-forward.js";
import type { ParameterInit } from "../parameters.js";
import { choice, count, countOrNull, flag, positive, tokenIds } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { only } from "./fields.js";
import type { GgufKey } from "./gguf/description.js";
import { activation, counted, layerCount, measured } from "./gguf/keys.js";
import { transposed } from "./gguf/targets.js";

/** Four times the width where a config does not say. */
const innerSize: GgufKey<{ readonly n_embd: number; readonly n_inner: number | null }> = {
  read: (file) => ({ n_inner: file.count("feed_forward_length") }),
  write: ({ n_embd: width, n_inner: inner }) => ({ feed_forward_length: { type: "u32", value: inner ?? 4 * width } }),
};

const summary = ["activation", "first_dropout", "proj_to_labels", "type", "use_proj"].map((name) => `summary_${name}`);

/** GPT-2 (Radford et al. 2019): transformers' GPT2LMHeadModel. */
export const gpt2: Family = defineFamily({
  className: "GPT2LMHeadModel",
  fields: {
    vocab_size: count(50257),
    n_embd: count(768),
    n_layer: count(12),
    n_head: count(12),
    n_positions: count(1024),
    n_inner: countOrNull(),
    activation_function: choice(activationNames, "gelu_new"),
    layer_norm_epsilon: positive(1e-5),
    initializer_range: positive(0.02),
    scale_attn_weights: flag(true),
    scale_attn_by_inverse_layer_idx: flag(false),
    eos_token_id: tokenIds(),
    tie_word_embeddings: flag(true),
    add_cross_attention: only(false),
  },
  rules: [({ n_embd: width, n_head: heads }) => (width % heads === 0 ? null : `"n_embd" ${width} is not a multiple of "n_head" ${heads}`)],
  otherNames: {
    hidden_size: "n_embd",
    num_hidden_layers: "n_layer",
    num_attention_heads: "n_head",
    max_position_embeddings: "n_positions",
  },
  remarks: ["n_ctx", "reorder_and_upcast_attn", ...summary],
  prefixes: [["", "transformer."]],
  ignored: /(^|\.)h\.\d+\.attn\.(bias|masked_bias)$/,
  gguf: {
    architecture: "gpt2",
    refuses: (config) =>
      config.scale_attn_weights && !config.scale_attn_by_inverse_layer_idx ? null : "scores are not scaled by a head's size alone",
    keys: [
      layerCount("n_layer"),
      counted("context_length", "n_positions"),
      counted("embedding_length", "n_embd"),
      counted("attention.head_count", "n_head"),
      measured("attention.layer_norm_epsilon", "layer_norm_epsilon"),
      innerSize,
      activation("activation_function", "gelu_new"),
    ],
    layer: () => ({
      ln_1: "attn_norm",
      "attn.c_attn": transposed("attn_qkv"),
      "attn.c_proj": transposed("attn_output"),
      ln_2: "ffn_norm",
      "mlp.c_fc": transposed("ffn_up"),
      "mlp.c_proj": transposed("ffn_down"),
    }),
    model: () => ({ wpe: "position_embd" }),
  },
  decoder: (config) => {
    const { n_embd: width, n_head: heads, n_layer: layers, scale_attn_weights: isScaled, scale_attn_by_inverse_layer_idx: falls } = config;
    const headDim = width / heads;
    const norm = { kind: "layer", eps: config.layer_norm_epsilon, bias: true } as const;
    // Residual projections start smaller, by 1/√(2 · layers) (section 2.3).
    const residual: ParameterInit = { kind: "normal", scale: 1 / Math.sqrt(2 * layers) };
    const names = { qkv: "c_attn", out: "c_proj", order: "parts" } as const;
    const bias = { q: true, out: true };
    const shared = { heads, kvHeads: heads, headDim, names, bias, isTransposed: true, outInit: residual, rope: null };
    const inner = config.n_inner ?? 4 * width;
    const mlp = feedForward({
      inner,
      activation: config.activation_function,
      names: { up: "c_fc", down: "c_proj" },
      bias: { up: true, down: true },
      isTransposed: true,
      downInit: residual,
    });
    const scale = isScaled ? 1 / Math.sqrt(headDim) : 1;
    return {
      vocabSize: config.vocab_size,
      width,
      contextLength: config.n_positions,
      embedding: { name: "transformer.wte", positions: "transformer.wpe" },
      layers: {
        name: "transformer.h",
        count: layers,
        at: (layer) => ({
          mixer: { name: "attn", part: attention({ ...shared, scale: scale / (falls ? layer + 1 : 1) }) },
          feedForward: { name: "mlp", part: mlp },
          norm,
          norms: { beforeMixer: "ln_1", beforeFeedForward: "ln_2" },
        }),
      },
      norm: { name: "transformer.ln_f", options: norm },
      head: { name: "lm_head", isTied: config.tie_word_embeddings },
    };
  },
});
