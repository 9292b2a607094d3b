import { activationNames } from "../activation.js";
import type { LayerOptions } from "../decoder/layer.js";
import type { RopeOptions } from "../decoder/rope.js";
import { choice, count, countOrNull, flag, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { numberOrNull, only, rotary, sizes, type Windows, windows, withDefaults } from "./fields.js";
import { geluTanh, multiplied, queryScalar, queryScale, softcap } from "./gguf/gemma.js";
import { biasField, llamaKeys } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, normsAroundNames, normsOnePlus, onePlus, queryKeyNorms } from "./gguf/targets.js";
import { windowButEvery } from "./gguf/windows.js";
import { contextOf, ofLayerType, type RotaryConfig, readRope } from "./rope.js";
import {
  decoderNamed,
  everyBias,
  gatedMlp,
  headRules,
  layerTypeRule,
  normsAround,
  queryKeyNorm,
  rmsNorm,
  selfAttention,
  slides,
} from "./standard.js";

type Local = RotaryConfig & { readonly rope_local_base_freq: number };
type Layers = Windows & { readonly sliding_window_pattern: number; readonly num_hidden_layers: number };

const fullRope = (config: RotaryConfig, path: string): RopeOptions =>
  readRope(ofLayerType(config, "full_attention"), path, { theta: 1e6, layerType: "full_attention" });
const localRope = (config: Local, path: string): RopeOptions =>
  readRope({ ...ofLayerType(config, "sliding_attention"), rope_theta: config.rope_local_base_freq }, path, {
    layerType: "sliding_attention",
  });
const hasWindow = (config: Layers, layer: number): boolean =>
  slides(config, layer, () => (layer + 1) % config.sliding_window_pattern !== 0);
const sixth = windowButEvery<Layers>(6, hasWindow);

/** Gemma 3 (Gemma Team 2025): five layers with a window and a rotary embedding of their own to one without: transformers' Gemma3ForCausalLM. */
export const gemma3Text: Family = defineFamily({
  className: "Gemma3ForCausalLM",
  fields: {
    // The published files of the 4B and 12B models leave these out.
    ...withDefaults(sizes, { vocab_size: 262208, num_attention_heads: 8, num_key_value_heads: 4, max_position_embeddings: 131072 }),
    head_dim: count(256),
    hidden_activation: choice(activationNames, "gelu_pytorch_tanh"),
    tie_word_embeddings: flag(true),
    ...rotary,
    rope_local_base_freq: positive(10000),
    ...windows,
    sliding_window: countOrNull(4096),
    sliding_window_pattern: count(6),
    attention_bias: flag(false),
    query_pre_attn_scalar: count(256),
    final_logit_softcapping: numberOrNull(),
    use_bidirectional_attention: only(false),
  },
  rules: [...headRules, layerTypeRule],
  prefixes: [["", "model."]],
  // transformers reads a cap of scores of Gemma 3's and does nothing with it.
  remarks: ["hidden_act", "_sliding_window_pattern", "attn_logit_softcapping"],
  gguf: {
    architecture: "gemma3",
    refuses: (config) => (sixth.fits(config) ? null : "windows do not return every so many layers"),
    keys: [
      ...llamaKeys,
      ropeKeys(fullRope, { local: localRope, localTheta: 10000 }),
      sixth,
      queryScalar(62),
      softcap("final_logit_softcapping"),
      geluTanh,
      biasField("attention_bias", "attn_q.bias", "without"),
    ],
    layer: (config) => ({
      ...normsOnePlus({ ...llamaNames, ...queryKeyNorms, ...normsAroundNames }),
      "self_attn.q_norm": multiplied(onePlus("attn_q_norm"), queryScale(config, 62)),
    }),
    model: () => ({ norm: onePlus("output_norm") }),
  },
  decoder: (config, path) => {
    const [full, local] = [fullRope(config, path), localRope(config, path)];
    const norm = { ...rmsNorm(config), weight: "1 + w" } as const;
    const layer = (index: number): LayerOptions => {
      const isLocal = hasWindow(config, index);
      const options = {
        rope: isLocal ? local : full,
        bias: everyBias(config.attention_bias),
        scale: 1 / Math.sqrt(config.query_pre_attn_scalar),
        queryKeyNorm: queryKeyNorm(norm, "head"),
        window: isLocal ? config.sliding_window : null,
      };
      const feedForward = gatedMlp(config, { activation: config.hidden_activation });
      return { mixer: selfAttention(config, options), feedForward, norm, norms: normsAround };
    };
    return decoderNamed(config, norm, layer, {
      contextLength: contextOf(config, full),
      embedding: { scale: Math.sqrt(config.hidden_size) },
      head: { cap: config.final_logit_softcapping },
    });
  },
});
