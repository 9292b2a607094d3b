import { activationNames } from "../activation.js";
import type { LayerOptions } from "../decoder/layer.js";
import { choice, count, countOrNull, flag } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { numberOrNull, only, rotary, type Sizes, sizes, type Windows, windows } from "./fields.js";
import { geluTanh, multiplied, queryScalar, queryScale, softcap } from "./gguf/gemma.js";
import { biasField, llamaKeys, tiedHead } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, normsAroundNames, normsOnePlus, onePlus } from "./gguf/targets.js";
import { windowOr } from "./gguf/windows.js";
import { contextOf, readRope } from "./rope.js";
import {
  decoderNamed,
  everyBias,
  gatedMlp,
  headRules,
  layerTypeRule,
  normsAround,
  rmsNorm,
  selfAttention,
  slides,
  windowOf,
} from "./standard.js";

/** Gemma 2 (Gemma Team 2024), with caps, windows by turns and norms around both sublayers: transformers' Gemma2ForCausalLM. */
export const gemma2: Family = defineFamily({
  className: "Gemma2ForCausalLM",
  fields: {
    ...sizes,
    num_key_value_heads: countOrNull(4),
    head_dim: count(256),
    max_position_embeddings: count(8192),
    hidden_activation: choice(activationNames, "gelu_pytorch_tanh"),
    tie_word_embeddings: flag(true),
    ...rotary,
    ...windows,
    sliding_window: countOrNull(4096),
    attention_bias: flag(false),
    query_pre_attn_scalar: count(256),
    attn_logit_softcapping: numberOrNull(50),
    final_logit_softcapping: numberOrNull(30),
    use_bidirectional_attention: only(false),
  },
  rules: [...headRules, layerTypeRule],
  prefixes: [["", "model."]],
  remarks: ["hidden_act"],
  gguf: {
    architecture: "gemma2",
    refuses: (config) => (slidesEverySecond(config) ? null : "the layers with a window are others than every second"),
    keys: [
      ...llamaKeys,
      ropeKeys(readRope),
      // Files of before July 2024 say none, and llama.cpp takes this.
      windowOr(() => 4096),
      tiedHead,
      queryScalar(46),
      softcap("attn_logit_softcapping", "never"),
      softcap("final_logit_softcapping", "never"),
      geluTanh,
      biasField("attention_bias", "attn_q.bias", "without"),
    ],
    layer: (config) => ({
      ...normsOnePlus({ ...llamaNames, ...normsAroundNames }),
      "self_attn.q_proj": multiplied("attn_q", queryScale(config, 46)),
    }),
    model: () => ({ norm: onePlus("output_norm") }),
  },
  decoder: (config, path) => {
    const rope = readRope(config, path);
    const norm = { ...rmsNorm(config), weight: "1 + w" } as const;
    const shared = {
      rope,
      bias: everyBias(config.attention_bias),
      scale: 1 / Math.sqrt(config.query_pre_attn_scalar),
      cap: config.attn_logit_softcapping,
    };
    const layer = (index: number): LayerOptions => ({
      mixer: selfAttention(config, { ...shared, window: windowOf(config, index, () => index % 2 === 0) }),
      feedForward: gatedMlp(config, { activation: config.hidden_activation }),
      norm,
      norms: normsAround,
    });
    return decoderNamed(config, norm, layer, {
      contextLength: contextOf(config, rope),
      embedding: { scale: Math.sqrt(config.hidden_size) },
      head: { cap: config.final_logit_softcapping },
    });
  },
});

/** Every second layer from the first on has a window. */
function slidesEverySecond(config: Windows & Pick<Sizes, "num_hidden_layers">): boolean {
  const layers = Array.from({ length: config.num_hidden_layers }, (_, layer) => layer);
  return layers.every((layer) => slides(config, layer, () => layer % 2 === 0) === (layer % 2 === 0));
}
