import * as z from "zod/mini";
import type { AttentionOptions } from "../decoder/attention.js";
import { checked, countOrNull, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { numberOrNull, rotary, sizes, withDefaults } from "./fields.js";
import type { GgufKey } from "./gguf/description.js";
import { llamaKeys, shortest, silu, vocabSize } from "./gguf/keys.js";
import { ropeKeys, yarnStretch } from "./gguf/rope.js";
import { llamaNames, neighbours } from "./gguf/targets.js";
import { window } from "./gguf/windows.js";
import { contextOf, type RotaryConfig, readRope } from "./rope.js";
import { decoderNamed, gatedMlp, headRules, normsInFront, rmsNorm, selfAttention } from "./standard.js";

/** Where a file has none. */
const usualRope = {
  rope_type: "yarn",
  rope_theta: 1e6,
  factor: 16,
  original_max_position_embeddings: 16384,
  beta_fast: 32,
  beta_slow: 1,
  mscale: 1,
  mscale_all_dim: 1,
  llama_4_scaling_beta: 0.1,
};

/** Queries are scaled by their positions, as in Llama 4: the parameters stand among those of the rotary embedding. */
function queryScaling(
  { rope_parameters: parameters, max_position_embeddings: most }: RotaryConfig,
  path: string,
): NonNullable<AttentionOptions["queryScaling"]> | null {
  const place = "rope_parameters";
  const { llama_4_scaling_beta: beta, original_max_position_embeddings: length } = parameters ?? {};
  const read = checked(z.object({ beta: numberOrNull(), length: positive(most) }), { beta, length }, path, place);
  return read.beta === null ? null : { beta: read.beta, length: read.length };
}

/** With the rotary parameters in their newer place, and the usual ones where a file has none. */
function withRope<C extends RotaryConfig>(given: C): C {
  const { rope_scaling: old } = given;
  const hasOld = old !== null && Object.keys(old).length > 0;
  return { ...given, rope_parameters: hasOld ? old : (given.rope_parameters ?? usualRope), rope_scaling: null };
}

/** The base of the queries' scaling, and the two factors by which YaRN's stretch is undone. */
const scalingKeys: GgufKey<RotaryConfig> = {
  read: (file) => {
    const [beta, all] = [file.number("attention.temperature_scale", undefined), file.number("rope.scaling.yarn_log_multiplier", undefined)];
    return {
      rope_parameters: {
        ...(beta !== undefined && { llama_4_scaling_beta: shortest(beta) }),
        ...(all !== undefined && { mscale: 1, mscale_all_dim: shortest(all) }),
      },
    };
  },
  write: (given) => {
    const { llama_4_scaling_beta: beta, mscale_all_dim: all } = withRope(given).rope_parameters ?? {};
    return {
      "attention.temperature_scale": typeof beta === "number" ? { type: "f32", value: beta } : null,
      "rope.scaling.yarn_log_multiplier": typeof all === "number" ? { type: "f32", value: all } : null,
    };
  },
};

/** Ministral 3: transformers' Ministral3ForCausalLM. */
export const ministral3: Family = defineFamily({
  className: "Ministral3ForCausalLM",
  fields: {
    ...withDefaults(sizes, {
      vocab_size: 131072,
      num_attention_heads: 32,
      num_key_value_heads: 8,
      head_dim: 128,
      max_position_embeddings: 262144,
      rms_norm_eps: 1e-5,
    }),
    ...rotary,
    sliding_window: countOrNull(),
  },
  rules: headRules,
  prefixes: [["", "model."]],
  gguf: {
    architecture: "mistral3",
    keys: [
      ...llamaKeys,
      silu,
      ropeKeys((config: RotaryConfig, path) => readRope(withRope(config), path), {
        dimensions: "always",
        isRampRead: true,
        stretch: (factor, all) => yarnStretch(factor) / yarnStretch(factor, all),
      }),
      scalingKeys,
      vocabSize,
      window,
    ],
    layer: (config) => ({ ...llamaNames, ...neighbours(config) }),
  },
  decoder: (given, path) => {
    const config = withRope(given);
    const [rope, norm] = [readRope(config, path), rmsNorm(config)];
    const layer = {
      mixer: selfAttention(config, { rope, window: config.sliding_window, queryScaling: queryScaling(config, path) }),
      feedForward: gatedMlp(config),
      norm,
      norms: normsInFront,
    };
    return decoderNamed(config, norm, () => layer, { contextLength: contextOf(config, rope) });
  },
});
