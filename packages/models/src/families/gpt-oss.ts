import { experts } from "../decoder/experts.js";
import { count, flag, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { only, rotary, sizes, windows } from "./fields.js";
import { fewerChoices } from "./mixture.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, headRules, normsInFront, rmsNorm, selfAttention, typePerLayer } from "./standard.js";

/** gpt-oss (OpenAI 2025): transformers' GptOssForCausalLM. */
export const gptOss: Family = defineFamily({
  className: "GptOssForCausalLM",
  fields: {
    ...sizes,
    ...rotary,
    ...windows,
    sliding_window: count(128),
    attention_bias: flag(true),
    num_local_experts: count(128),
    num_experts_per_tok: count(4),
    swiglu_limit: positive(7),
    output_router_logits: only(false),
  },
  rules: [...headRules, typePerLayer, fewerChoices("num_experts_per_tok", "num_local_experts")],
  prefixes: [["", "model."]],
  remarks: ["initial_context_length", "experts_per_token"],
  decoder: (config, path) => {
    const rope = readRope(config, path, { theta: 150000 });
    const norm = rmsNorm(config);
    const { attention_bias: has, num_local_experts: number, num_experts_per_tok: choices, intermediate_size: inner } = config;
    return decoderNamed(
      config,
      norm,
      (layer) => ({
        mixer: selfAttention(config, {
          rope,
          bias: { q: has, k: has, v: has, out: has },
          window: isSliding(config.layer_types, layer) ? config.sliding_window : null,
          sinks: "sinks",
        }),
        feedForward: {
          name: "mlp",
          part: experts({
            count: number,
            inner,
            activation: { kind: "clamped", limit: config.swiglu_limit, alpha: 1.702 },
            stored: { kind: "stacked", isTransposed: true, bias: true },
            router: { name: "router", bias: true },
            routing: { kind: "softmaxOfChosen", choices, isNormalized: true },
          }),
        },
        norm,
        norms: normsInFront,
      }),
      { contextLength: contextOf(config, rope) },
    );
  },
});

/** Every other layer slides where the file does not say. */
function isSliding(types: readonly string[] | null, layer: number): boolean {
  return types ? types[layer] === "sliding_attention" : layer % 2 === 0;
}
