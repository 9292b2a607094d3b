import type { RopeOptions } from "../decoder/rope.js";
import { count, countOrNull, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { rotary, sizes } from "./fields.js";
import type { GgufKey } from "./gguf/description.js";
import { llamaKeys, silu } from "./gguf/keys.js";
import { ropeKeys } from "./gguf/rope.js";
import { llamaNames } from "./gguf/targets.js";
import { windowOr } from "./gguf/windows.js";
import { contextOf, type RotaryConfig, readRope } from "./rope.js";
import { decoderNamed, gatedMlp, headRules, normsInFront, rmsNorm, selfAttention } from "./standard.js";

const partialRope = (config: RotaryConfig, path: string): RopeOptions =>
  readRope(config, path, { isPartial: true, aliases: { yarn: "longrope" } });

/** Of files of before August 2024, which say no window: that of the models with 4096 positions, as llama.cpp takes it; others saw all tokens. */
const oldWindow = windowOr((file) => ([32, 40].includes(file.layerCount()) && file.count("context_length") === 4096 ? 2047 : null));

/** 0 says that there is none. The length from which on other factors count stands in every file. */
const phi3Window: GgufKey<{ readonly sliding_window: number | null; readonly original_max_position_embeddings: number | null }> = {
  read: (file) => ({
    ...oldWindow.read(file),
    original_max_position_embeddings: file.count("rope.scaling.original_context_length", undefined),
  }),
  write: ({ sliding_window: size, original_max_position_embeddings: length }) => ({
    "attention.sliding_window": { type: "u32", value: size ?? 0 },
    "rope.scaling.original_context_length": length === null ? null : { type: "u32", value: length },
  }),
};

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
  gguf: {
    architecture: "phi3",
    keys: [...llamaKeys, silu, ropeKeys(partialRope, { dimensions: "always", isPartial: true, isLongropeNamed: false }), phi3Window],
    layer: () => ({ ...llamaNames, "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up" }),
  },
  decoder: (config, path) => {
    const rope = partialRope(config, path);
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
