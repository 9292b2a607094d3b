import type { RopeOptions } from "../decoder/rope.js";
import { flag } from "../schema.js";
import { type DeltaSizes, deltaFields, deltaNet, deltaRules, deltaSizes, isLinear } from "./delta.js";
import { defineFamily, type Family } from "./family.js";
import { rotary, type Sizes, sizes, withDefaults } from "./fields.js";
import { deltaKeys, gatedNames, type NetLength, netApart, sections } from "./gguf/delta.js";
import { biasField, llamaKeys, silu } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, normsOnePlus, onePlus, queryKeyNorms } from "./gguf/targets.js";
import { contextOf, type RotaryConfig, readRope } from "./rope.js";
import { decoderNamed, gatedMlp, headRules, normsInFront, selfAttention, typePerLayer } from "./standard.js";

const quarter = (config: RotaryConfig, path: string): RopeOptions => readRope(config, path, { isPartial: true, partial: 0.25 });

/** Qwen3.5's text model: transformers' Qwen3_5ForCausalLM. */
export const qwen35: Family = defineFamily({
  className: "Qwen3_5ForCausalLM",
  fields: {
    ...withDefaults(sizes, { ...deltaSizes, vocab_size: 248320, num_key_value_heads: 4 }),
    ...rotary,
    ...deltaFields,
    attention_bias: flag(false),
  },
  rules: [...headRules, typePerLayer, ...deltaRules],
  foreign: /^mtp\./,
  prefixes: [
    ["", "model."],
    ["model.language_model.", "model."],
  ],
  remarks: ["mamba_ssm_dtype", "attn_output_gate", "mlp_only_layers", "mtp_num_hidden_layers", "mtp_use_dedicated_embeddings"],
  gguf: {
    architecture: "qwen35",
    keys: [
      ...llamaKeys,
      silu,
      ropeKeys(quarter, { dimensions: "always", isPartial: true }),
      deltaKeys<DeltaSizes & Pick<Sizes, "num_hidden_layers"> & NetLength>(isLinear),
      sections,
      biasField("attention_bias", "attn_q.bias"),
    ],
    layer: (config) => ({ ...normsOnePlus({ ...llamaNames, ...queryKeyNorms, ...gatedNames }), ...netApart(config) }),
    model: () => ({ norm: onePlus("output_norm") }),
  },
  decoder: (config, path) => {
    const rope = quarter(config, path);
    const norm = { kind: "rms", eps: config.rms_norm_eps, weight: "1 + w" } as const;
    const { attention_bias: has } = config;
    const attention = selfAttention(config, {
      rope,
      isGated: true,
      bias: { q: has, k: has, v: has, out: has },
      queryKeyNorm: { q: "q_norm", k: "k_norm", norm, over: "head" },
    });
    const delta = deltaNet(config, "apart");
    return decoderNamed(
      config,
      norm,
      (layer) => ({
        mixer: isLinear(config, layer) ? delta : attention,
        feedForward: gatedMlp(config),
        norm,
        norms: normsInFront,
      }),
      { contextLength: contextOf(config, rope) },
    );
  },
});
