import { type DeltaSizes, deltaDecoder, deltaFields, deltaRules, isLinear, quarterRope } from "./delta.js";
import { defineFamily, type Family } from "./family.js";
import type { Sizes } from "./fields.js";
import { deltaKeys, gatedNames, type NetLength, netApart, sections } from "./gguf/delta.js";
import { biasField, llamaKeys, silu } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, normsOnePlus, onePlus, queryKeyNorms } from "./gguf/targets.js";
import { gatedMlp, headRules, typePerLayer } from "./standard.js";

/** Qwen3.5's text model: transformers' Qwen3_5ForCausalLM. */
export const qwen35: Family = defineFamily({
  className: "Qwen3_5ForCausalLM",
  fields: deltaFields({ vocab_size: 248320, num_key_value_heads: 4 }),
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
      ropeKeys(quarterRope, { dimensions: "always", isPartial: true }),
      deltaKeys<DeltaSizes & Pick<Sizes, "num_hidden_layers"> & NetLength>(isLinear),
      sections(quarterRope),
      biasField("attention_bias", "attn_q.bias", "without"),
    ],
    layer: (config) => ({ ...normsOnePlus({ ...llamaNames, ...queryKeyNorms, ...gatedNames }), ...netApart(config) }),
    model: () => ({ norm: onePlus("output_norm") }),
  },
  decoder: (config, path) => deltaDecoder(config, path, "apart", () => gatedMlp(config)),
});
