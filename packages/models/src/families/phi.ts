import { activationNames } from "../activation.js";
import { feedForward } from "../decoder/feed-forward.js";
import type { RopeOptions } from "../decoder/rope.js";
import { choice, flag } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { layerNormSizes, rotary } from "./fields.js";
import { activation, layerEpsilon, sizeKeys, sizesByTensors } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, perhapsFused } from "./gguf/targets.js";
import { contextOf, type RotaryConfig, readRope } from "./rope.js";
import { decoderNamed, headRules, layerNorm, selfAttention } from "./standard.js";

const half = (config: RotaryConfig, path: string): RopeOptions => readRope(config, path, { isPartial: true, partial: 0.5 });

/** Phi-1, 1.5 and 2 (Gunasekar et al. 2023): transformers' PhiForCausalLM. Attention and MLP read one norm, and everything has a bias. */
export const phi: Family = defineFamily({
  className: "PhiForCausalLM",
  fields: { ...layerNormSizes, ...rotary, hidden_act: choice(activationNames, "gelu_new"), qk_layernorm: flag(false) },
  rules: headRules,
  prefixes: [["", "model."]],
  ignored: /\.rotary_emb\.inv_freq$/,
  gguf: {
    architecture: "phi2",
    hasOwnHead: true,
    refuses: (config) => (config.qk_layernorm ? "queries and keys are normed" : null),
    keys: [
      ...sizeKeys,
      sizesByTensors,
      layerEpsilon,
      activation("hidden_act", "gelu_new"),
      ropeKeys(half, { dimensions: "always", isPartial: true }),
    ],
    layer: (config) => ({
      ...llamaNames,
      ...perhapsFused(config),
      "self_attn.dense": "attn_output",
      "mlp.fc1": "ffn_up",
      "mlp.fc2": "ffn_down",
    }),
  },
  decoder: (config, path) => {
    const norm = layerNorm(config);
    const rope = half(config, path);
    const mixer = selfAttention(config, {
      names: { q: "q_proj", k: "k_proj", v: "v_proj", out: "dense" },
      bias: { q: true, k: true, v: true, out: true },
      rope,
      queryKeyNorm: config.qk_layernorm ? { q: "q_layernorm", k: "k_layernorm", norm, over: "head" } : null,
    });
    const { intermediate_size: inner, hidden_act: activation } = config;
    const mlp = feedForward({ inner, activation, names: { up: "fc1", down: "fc2" }, bias: { up: true, down: true } });
    const layer = { mixer, feedForward: { name: "mlp", part: mlp }, norm, norms: { beforeMixer: "input_layernorm" }, isParallel: true };
    return decoderNamed(config, norm, () => layer, {
      contextLength: contextOf(config, rope),
      norm: { name: "model.final_layernorm" },
      head: { bias: true },
    });
  },
});
