import { experts } from "../decoder/experts.js";
import type { RopeOptions } from "../decoder/rope.js";
import { count, flag } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { only, rotary, sizes, windows, withDefaults } from "./fields.js";
import { expertKeys, transposedExperts } from "./gguf/experts.js";
import { biasField, llamaKeys, silu, written } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames } from "./gguf/targets.js";
import { window } from "./gguf/windows.js";
import { fewerChoices } from "./mixture.js";
import { contextOf, type RotaryConfig, readRope } from "./rope.js";
import { decoderNamed, everyBias, headRules, normsInFront, rmsNorm, selfAttention, typePerLayer } from "./standard.js";

/** Where a file has none. */
const usualRope = { rope_type: "yarn", factor: 32, beta_fast: 32, beta_slow: 1, truncate: false, original_max_position_embeddings: 4096 };

const rope = (config: RotaryConfig, path: string): RopeOptions => readRope(config, path, { theta: 150000, absent: usualRope });

type Json = Readonly<Record<string, unknown>>;

/** Of gates and ups; transformers takes it whatever a file says. */
const limit = 7;

/** gpt-oss (OpenAI 2025): transformers' GptOssForCausalLM. */
export const gptOss: Family = defineFamily({
  className: "GptOssForCausalLM",
  fields: {
    ...withDefaults(sizes, {
      vocab_size: 201088,
      num_attention_heads: 64,
      num_key_value_heads: 8,
      head_dim: 64,
      max_position_embeddings: 131072,
      rms_norm_eps: 1e-5,
    }),
    ...rotary,
    ...windows,
    sliding_window: count(128),
    attention_bias: flag(true),
    num_local_experts: count(128),
    num_experts_per_tok: count(4),
    swiglu_limit: only(limit),
    output_router_logits: only(false),
  },
  rules: [...headRules, typePerLayer, fewerChoices("num_experts_per_tok", "num_local_experts")],
  otherNames: { num_experts: "num_local_experts" },
  prefixes: [["", "model."]],
  remarks: ["initial_context_length", "experts_per_token"],
  gguf: {
    architecture: "gpt-oss",
    hasOwnHead: true,
    refuses: (config) => {
      const layers = Array.from({ length: config.num_hidden_layers }, (_, layer) => layer);
      const isUsual = layers.every((layer) => isSliding(config.layer_types, layer) === (layer % 2 === 0));
      return isUsual ? null : "the layers with a window are others than every second";
    },
    keys: [
      ...llamaKeys,
      silu,
      ropeKeys(rope, { isTruncated: false }),
      window,
      ...expertKeys("num_local_experts"),
      written("expert_feed_forward_length", (config: Json) => ({ type: "u32", value: Number(config["intermediate_size"]) })),
      biasField("attention_bias", "attn_q.bias", "with"),
    ],
    layer: () => ({
      ...llamaNames,
      ...transposedExperts("mlp", "router"),
      "self_attn.sinks": "attn_sinks.weight",
      post_attention_layernorm: "post_attention_norm",
    }),
  },
  decoder: (config, path) => {
    const own = rope(config, path);
    const norm = rmsNorm(config);
    const { attention_bias: has, num_local_experts: number, num_experts_per_tok: choices, intermediate_size: inner } = config;
    return decoderNamed(
      config,
      norm,
      (layer) => ({
        mixer: selfAttention(config, {
          rope: own,
          bias: everyBias(has),
          window: isSliding(config.layer_types, layer) ? config.sliding_window : null,
          sinks: "sinks",
        }),
        feedForward: {
          name: "mlp",
          part: experts({
            count: number,
            inner,
            activation: { kind: "clamped", limit, alpha: 1.702 },
            stored: { kind: "stacked", isTransposed: true, bias: true },
            router: { name: "router", bias: true },
            routing: { kind: "softmaxOfChosen", choices, isNormalized: true },
          }),
        },
        norm,
        norms: normsInFront,
      }),
      { contextLength: contextOf(config, own) },
    );
  },
});

/** Every other layer slides where the file does not say. */
function isSliding(types: readonly string[] | null, layer: number): boolean {
  return types ? types[layer] === "sliding_attention" : layer % 2 === 0;
}
