import type { RopeOptions } from "../decoder/rope.js";
import { flag, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { rotary, sizes } from "./fields.js";
import { biasField, llamaKeys, silu } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames } from "./gguf/targets.js";
import { contextOf, type RotaryConfig, readRope } from "./rope.js";
import { decoderNamed, everyBias, gatedMlp, headRules, normsInFront, rmsNorm, selfAttention } from "./standard.js";

/** Hunyuan dense (Tencent 2025): transformers' HunYuanDenseV1ForCausalLM. Queries and keys are normed behind the rope. */
export const hunyuanV1Dense: Family = defineFamily({
  className: "HunYuanDenseV1ForCausalLM",
  fields: { ...sizes, ...rotary, rms_norm_eps: positive(1e-5), attention_bias: flag(false) },
  rules: headRules,
  remarks: [
    ...["eod_token_id", "eod_id", "im_end_id", "im_newline_id", "im_start_id", "pad_id", "mask_init_id", "text_start_id", "text_end_id"],
    ...[
      "org_vocab_size",
      "use_qk_norm",
      "use_cla",
      "cla_share_factor",
      "attention_head_dim",
      "mlp_bias",
      "norm_type",
      "use_rotary_pos_emb",
    ],
    ...["add_classification_head", "class_num", "dense_list", "enable_lm_head_fp32", "pool_type", "num_media_embeds"],
  ],
  prefixes: [["", "model."]],
  gguf: {
    architecture: "hunyuan-dense",
    keys: [...llamaKeys, silu, ropeKeys(ropeOf), biasField("attention_bias", "attn_q.bias", "without")],
    layer: () => ({ ...llamaNames, "self_attn.query_layernorm": "attn_q_norm", "self_attn.key_layernorm": "attn_k_norm" }),
  },
  decoder: (config, path) => {
    const norm = rmsNorm(config);
    const { attention_bias: has } = config;
    const rope = ropeOf(config, path);
    const mixer = selfAttention(config, {
      rope,
      bias: everyBias(has),
      queryKeyNorm: { q: "query_layernorm", k: "key_layernorm", norm, over: "head", isAfterRope: true },
    });
    const layer = { mixer, feedForward: gatedMlp(config), norm, norms: normsInFront };
    return decoderNamed(config, norm, () => layer, { contextLength: contextOf(config, rope) });
  },
});

/** With alpha, dynamic means one larger θ, whatever the length. */
function ropeOf(config: RotaryConfig, path: string): RopeOptions {
  const read = readRope(config, path);
  const { dims, theta } = read;
  const alpha = Number((config.rope_scaling ?? config.rope_parameters)?.["alpha"] ?? 0);
  const isLarger = read.scaling.kind === "dynamic" && alpha > 0;
  return isLarger ? { ...read, theta: theta * alpha ** (dims / (dims - 2)), scaling: { kind: "default" } } : read;
}
