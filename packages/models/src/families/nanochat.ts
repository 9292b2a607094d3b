import { activationNames } from "../activation.js";
import { feedForward } from "../decoder/feed-forward.js";
import { choice, flag } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { numberOrNull, orNone, rotary, sizes } from "./fields.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, everyBias, headRules, normsInFront, selfAttention } from "./standard.js";

/** nanochat (Karpathy 2025): transformers' NanoChatForCausalLM. Norms have no weights, and heads turn the other way round. */
export const nanochat: Family = defineFamily({
  className: "NanoChatForCausalLM",
  fields: {
    ...sizes,
    ...rotary,
    hidden_act: choice(activationNames, "relu2"),
    attention_bias: flag(false),
    final_logit_softcapping: orNone(15, numberOrNull()),
  },
  rules: headRules,
  prefixes: [["", "model."]],
  decoder: (config, path) => {
    const norm = { kind: "rms", eps: config.rms_norm_eps, weight: "none" } as const;
    const { attention_bias: has, intermediate_size: inner, hidden_act: activation } = config;
    const rope = readRope(config, path, { isReversed: true });
    const mixer = selfAttention(config, {
      rope,
      bias: everyBias(has),
      queryKeyNorm: { q: "q_norm", k: "k_norm", norm, over: "head", isAfterRope: true },
    });
    const mlp = feedForward({ inner, activation, names: { up: "fc1", down: "fc2" } });
    const layer = { mixer, feedForward: { name: "mlp", part: mlp }, norm, norms: normsInFront };
    return decoderNamed(config, norm, () => layer, {
      contextLength: contextOf(config, rope),
      embedding: { norm: { name: "model.embedding_norm", options: norm } },
      head: { cap: config.final_logit_softcapping },
    });
  },
});
