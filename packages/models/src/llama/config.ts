import * as z from "zod/mini";
import { type ActivationName, activationNames } from "../activation.js";
import type { ModelConfig } from "../config.js";
import { checked, choice, count, countOrNull, flag, positive, rule, tokenIds } from "../schema.js";
import { type RopeScaling, readRope } from "./rope.js";

/** config.json of the Llama family. */
export interface LlamaConfig extends ModelConfig {
  readonly model_type: "llama";
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly max_position_embeddings: number;
  readonly rms_norm_eps: number;
  readonly initializer_range: number;
  readonly hidden_act: ActivationName;
  readonly attention_bias: boolean;
  readonly mlp_bias: boolean;
}

/** What the model needs of a config.json, with the defaults of transformers' LlamaConfig. */
const schema = z
  .object({
    vocab_size: count(),
    hidden_size: count(),
    intermediate_size: count(),
    num_hidden_layers: count(),
    num_attention_heads: count(),
    num_key_value_heads: countOrNull(),
    head_dim: countOrNull(),
    max_position_embeddings: count(2048),
    rms_norm_eps: positive(1e-6),
    initializer_range: positive(0.02),
    hidden_act: choice(activationNames, "silu"),
    attention_bias: flag(false),
    mlp_bias: flag(false),
    eos_token_id: tokenIds(),
    tie_word_embeddings: flag(false),
  })
  .check(
    rule(({ num_attention_heads: heads, num_key_value_heads: kvHeads }) =>
      kvHeads === null || heads % kvHeads === 0
        ? null
        : `"num_attention_heads" ${heads} is not a multiple of "num_key_value_heads" ${kvHeads}`,
    ),
    rule(({ head_dim: given, hidden_size: width, num_attention_heads: heads }) => {
      if (given === null && width % heads !== 0) return `"hidden_size" ${width} is not a multiple of "num_attention_heads" ${heads}`;
      const headDim = given ?? width / heads;
      return headDim % 2 === 0 ? null : `"head_dim" ${headDim} is odd, rotary embeddings need an even one`;
    }),
  );

/** Checks a config.json and fills in the defaults. Throws CheckpointError naming the fields. */
export function llamaConfig(json: Readonly<Record<string, unknown>>, path: string): LlamaConfig {
  // Only looked at: what the file does not say is not added.
  const { eos_token_id: _end, ...fields } = checked(schema, json, path);
  readRope(json, path);
  const { hidden_size: width, num_attention_heads: heads } = fields;
  return {
    ...json,
    ...fields,
    model_type: "llama",
    num_key_value_heads: fields.num_key_value_heads ?? heads,
    head_dim: fields.head_dim ?? width / heads,
  };
}

/** The rotary embedding's parameters, wherever this config keeps them. */
export function ropeOf(config: LlamaConfig): RopeScaling {
  return readRope(config, "config.json");
}
