import type { RopeOptions } from "../decoder/rope.js";
import { count, flag } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { layerNormSizes, rotary } from "./fields.js";
import { biasField, flagged, layerEpsilon, silu, sizeKeys } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames, stacked } from "./gguf/targets.js";
import { contextOf, type RotaryConfig, readRope } from "./rope.js";
import { decoderNamed, gatedMlp, headRules, layerNorm, normsInFront, selfAttention } from "./standard.js";

const quarter = (config: RotaryConfig, path: string): RopeOptions => readRope(config, path, { isPartial: true, partial: 0.25 });

/** StableLM (Bellagente et al. 2024): transformers' StableLmForCausalLM. */
export const stablelm: Family = defineFamily({
  className: "StableLmForCausalLM",
  fields: {
    ...layerNormSizes,
    ...rotary,
    max_position_embeddings: count(4096),
    use_qkv_bias: flag(false),
    qk_layernorm: flag(false),
    use_parallel_residual: flag(false),
  },
  rules: headRules,
  remarks: ["norm_eps", "rope_pct", "rotary_scaling_factor"],
  prefixes: [["", "model."]],
  ignored: /\.rotary_emb\.inv_freq$/,
  gguf: {
    architecture: "stablelm",
    hasOwnHead: true,
    keys: [
      ...sizeKeys,
      layerEpsilon,
      silu,
      ropeKeys(quarter, { dimensions: "always", isPartial: true }),
      flagged("use_parallel_residual", "use_parallel_residual"),
      biasField("use_qkv_bias", "attn_q.bias"),
      biasField("qk_layernorm", "attn_q_norm.weight"),
    ],
    layer: ({ num_attention_heads: heads, num_key_value_heads: kvHeads }) => ({
      ...llamaNames,
      "self_attn.q_layernorm.norms.*": stacked("attn_q_norm", heads),
      "self_attn.k_layernorm.norms.*": stacked("attn_k_norm", kvHeads ?? heads),
    }),
  },
  decoder: (config, path) => {
    const norm = layerNorm(config);
    const { use_qkv_bias: has, use_parallel_residual: isParallel } = config;
    const rope = quarter(config, path);
    const mixer = selfAttention(config, {
      rope,
      bias: { q: has, k: has, v: has },
      queryKeyNorm: config.qk_layernorm
        ? { q: "q_layernorm", k: "k_layernorm", norm: { ...norm, bias: false }, over: "each head apart" }
        : null,
    });
    const { beforeMixer } = normsInFront;
    const layer = { mixer, feedForward: gatedMlp(config), norm, norms: isParallel ? { beforeMixer } : normsInFront, isParallel };
    return decoderNamed(config, norm, () => layer, { contextLength: contextOf(config, rope) });
  },
});
