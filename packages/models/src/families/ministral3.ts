import * as z from "zod/mini";
import type { AttentionOptions } from "../decoder/attention.js";
import { checked, count, countOrNull, positive } from "../schema.js";
import { defineFamily, type Family } from "./family.js";
import { numberOrNull, rotary, sizes } from "./fields.js";
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

/** Ministral 3: transformers' Ministral3ForCausalLM. */
export const ministral3: Family = defineFamily({
  className: "Ministral3ForCausalLM",
  fields: {
    ...sizes,
    num_key_value_heads: countOrNull(8),
    head_dim: countOrNull(128),
    max_position_embeddings: count(262144),
    rms_norm_eps: positive(1e-5),
    ...rotary,
    sliding_window: countOrNull(),
  },
  rules: headRules,
  prefixes: [["", "model."]],
  decoder: (given, path) => {
    const config = { ...given, rope_parameters: given.rope_scaling ?? given.rope_parameters ?? usualRope, rope_scaling: null };
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
