import { activationNames } from "../activation.js";
import { feedForward } from "../decoder/feed-forward.js";
import { choice, count, countOrNull, flag, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { plainSizes, rotary } from "./fields.js";
import { activation, biasField, headDim, measured, sizeKeys } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames } from "./gguf/targets.js";
import { window } from "./gguf/windows.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, everyBias, headRules, normsInFront, selfAttention } from "./standard.js";

/** StarCoder 2 (Lozhkov et al. 2024): transformers' Starcoder2ForCausalLM. */
export const starcoder2: Family = defineFamily({
  className: "Starcoder2ForCausalLM",
  fields: {
    ...plainSizes,
    ...rotary,
    num_key_value_heads: countOrNull(2),
    max_position_embeddings: count(4096),
    initializer_range: positive(0.018042),
    norm_epsilon: positive(1e-5),
    hidden_act: choice(activationNames, "gelu_pytorch_tanh"),
    sliding_window: countOrNull(),
    use_bias: flag(true),
    tie_word_embeddings: flag(true),
  },
  rules: headRules,
  remarks: ["mlp_type", "norm_type", "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "scale_attn_weights"],
  prefixes: [["", "model."]],
  gguf: {
    architecture: "starcoder2",
    keys: [
      ...sizeKeys,
      headDim,
      measured("attention.layer_norm_epsilon", "norm_epsilon"),
      activation("hidden_act", "gelu_pytorch_tanh"),
      ropeKeys(readRope),
      // llama.cpp sees all tokens whatever the window is; the key is ours.
      window,
      biasField("use_bias", "attn_q.bias", "with"),
    ],
    layer: () => ({ ...llamaNames, "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down" }),
  },
  decoder: (config, path) => {
    const norm = { kind: "layer", eps: config.norm_epsilon, bias: true } as const;
    const { use_bias: has, intermediate_size: inner, hidden_act: activation, sliding_window: window } = config;
    const rope = readRope(config, path);
    const mixer = selfAttention(config, { rope, window, bias: everyBias(has) });
    const mlp = feedForward({ inner, activation, names: { up: "c_fc", down: "c_proj" }, bias: { up: has, down: has } });
    const layer = { mixer, feedForward: { name: "mlp", part: mlp }, norm, norms: normsInFront };
    return decoderNamed(config, norm, () => layer, { contextLength: contextOf(config, rope) });
  },
});
