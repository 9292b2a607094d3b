import { flag } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { rotary, sizes } from "./fields.js";
import { biasField, llamaKeys, silu, vocabSize } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, neighbours } from "./gguf/targets.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, everyBias, gatedMlp, headRules, normsInFront, rmsNorm, selfAttention } from "./standard.js";

/** Llama (Touvron et al. 2023), and SmolLM2: transformers' LlamaForCausalLM. */
export const llama: Family = defineFamily({
  className: "LlamaForCausalLM",
  fields: { ...sizes, ...rotary, attention_bias: flag(false), mlp_bias: flag(false) },
  rules: headRules,
  prefixes: [["", "model."]],
  ignored: /\.rotary_emb\.inv_freq$/,
  gguf: {
    architecture: "llama",
    isOurs: (file) => file.count("expert_count", 0) === 0 && !file.has("attention.sliding_window"),
    keys: [
      ...llamaKeys,
      silu,
      vocabSize,
      ropeKeys(readRope, { dimensions: "always" }),
      biasField("attention_bias", "attn_q.bias"),
      biasField("mlp_bias", "ffn_gate.bias"),
    ],
    layer: (config) => ({ ...llamaNames, ...neighbours(config) }),
  },
  decoder: (config, path) => {
    const [rope, norm, { mlp_bias: has }] = [readRope(config, path), rmsNorm(config), config];
    const layer = {
      mixer: selfAttention(config, { rope, bias: everyBias(config.attention_bias) }),
      feedForward: gatedMlp(config, { bias: { up: has, down: has } }),
      norm,
      norms: normsInFront,
    };
    return decoderNamed(config, norm, () => layer, { contextLength: contextOf(config, rope) });
  },
});
