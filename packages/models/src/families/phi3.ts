import { count, countOrNull, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { rotary, sizes } from "./fields.js";
import { contextOf, readRope } from "./rope.js";
import { decoderNamed, gatedMlp, headRules, normsInFront, rmsNorm, selfAttention } from "./standard.js";

/** Phi-3 and Phi-4-mini (Abdin et al. 2024), with fused projections: transformers' Phi3ForCausalLM. */
export const phi3: Family = defineFamily({
  className: "Phi3ForCausalLM",
  fields: {
    ...sizes,
    max_position_embeddings: count(4096),
    rms_norm_eps: positive(1e-5),
    ...rotary,
    original_max_position_embeddings: countOrNull(4096),
    sliding_window: countOrNull(),
  },
  rules: headRules,
  prefixes: [["", "model."]],
  remarks: ["attention_bias", "mlp_bias", "lm_head_bias", "full_attn_mod", "interpolate_factor", "embd_layer", "img_processor"],
  decoder: (config, path) => {
    const rope = readRope(config, path, { isPartial: true, aliases: { yarn: "longrope" } });
    const norm = rmsNorm(config);
    const layer = {
      mixer: selfAttention(config, { rope, names: { qkv: "qkv_proj", out: "o_proj", order: "parts" }, window: config.sliding_window }),
      feedForward: gatedMlp(config, { names: { gateUp: "gate_up_proj", down: "down_proj" } }),
      norm,
      norms: normsInFront,
    };
    return {
      ...decoderNamed(config, norm, () => layer, { contextLength: contextOf(config, rope) }),
      ...(rope.scaling.kind === "longrope" && { rereadsAt: rope.scaling.length + 1 }),
    };
  },
});
