import type { RopeOptions } from "../decoder/rope.js";
import { count, flag } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { layerNormSizes, numberOrNull, rotary } from "./fields.js";
import { biasField, headDim, layerEpsilon, logitScale, silu, sizeKeys, tiedHead } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, queryKeyNorms } from "./gguf/targets.js";
import { contextOf, type RotaryConfig, readRope } from "./rope.js";
import { decoderNamed, everyBias, gatedMlp, headRules, selfAttention } from "./standard.js";

const adjacent = (config: RotaryConfig, path: string): RopeOptions => readRope(config, path, { theta: 5e5, pairing: "adjacent" });

/** Command R (Cohere 2024): transformers' CohereForCausalLM. Attention and MLP read one norm without a bias; rope turns neighbouring pairs. */
export const cohere: Family = defineFamily({
  className: "CohereForCausalLM",
  fields: {
    ...layerNormSizes,
    ...rotary,
    max_position_embeddings: count(8192),
    logit_scale: numberOrNull(),
    attention_bias: flag(false),
    use_qk_norm: flag(false),
    tie_word_embeddings: flag(true),
  },
  rules: headRules,
  remarks: ["model_max_length"],
  prefixes: [["", "model."]],
  gguf: {
    architecture: "command-r",
    keys: [
      ...sizeKeys,
      headDim,
      tiedHead,
      layerEpsilon,
      silu,
      ropeKeys(adjacent, { isNamedNone: true }),
      logitScale,
      biasField("attention_bias", "attn_q.bias", "without"),
      biasField("use_qk_norm", "attn_q_norm.weight"),
    ],
    layer: () => ({ ...llamaNames, ...queryKeyNorms }),
    notes: ({ use_qk_norm: hasNorm, num_hidden_layers: layers }) =>
      hasNorm && layers < 64
        ? `Queries and keys are normed, which llama.cpp reads of this family from 64 layers on: it loads no such file of ${layers}.`
        : null,
  },
  decoder: (config, path) => {
    const norm = { kind: "layer", eps: config.layer_norm_eps } as const;
    const { attention_bias: has, use_qk_norm: hasNorm } = config;
    const rope = adjacent(config, path);
    const mixer = selfAttention(config, {
      rope,
      bias: everyBias(has),
      queryKeyNorm: hasNorm ? { q: "q_norm", k: "k_norm", norm, over: "each head" } : null,
    });
    const layer = { mixer, feedForward: gatedMlp(config), norm, norms: { beforeMixer: "input_layernorm" }, isParallel: true };
    return decoderNamed(config, norm, () => layer, {
      contextLength: contextOf(config, rope),
      head: { scale: config.logit_scale ?? 0.0625 },
    });
  },
});
