import * as z from "zod/mini";
import { type ActivationName, activationNames } from "../activation.js";
import type { ModelConfig } from "../config.js";
import { checked, choice, count, countOrNull, flag, positive, rule, tokenIds } from "../schema.js";

/** config.json of GPT-2. */
export interface Gpt2Config extends ModelConfig {
  readonly model_type: "gpt2";
  readonly n_embd: number;
  readonly n_layer: number;
  readonly n_head: number;
  readonly n_positions: number;
  /** Width of the feed-forward layer; 4 · n_embd when null. */
  readonly n_inner: number | null;
  readonly activation_function: ActivationName;
  readonly layer_norm_epsilon: number;
  readonly initializer_range: number;
  readonly scale_attn_weights: boolean;
  readonly scale_attn_by_inverse_layer_idx: boolean;
}

/** What the model needs of a config.json, with the defaults of transformers' GPT2Config. */
const schema = z
  .object({
    vocab_size: count(50257),
    n_embd: count(768),
    n_layer: count(12),
    n_head: count(12),
    n_positions: count(1024),
    n_inner: countOrNull(),
    activation_function: choice(activationNames, "gelu_new"),
    layer_norm_epsilon: positive(1e-5),
    initializer_range: positive(0.02),
    scale_attn_weights: flag(true),
    scale_attn_by_inverse_layer_idx: flag(false),
    eos_token_id: tokenIds(),
    tie_word_embeddings: flag(true),
    add_cross_attention: flag(false),
  })
  .check(
    rule(({ n_embd: width, n_head: heads }) => (width % heads === 0 ? null : `"n_embd" ${width} is not a multiple of "n_head" ${heads}`)),
    rule(({ add_cross_attention: hasCross }) =>
      hasCross ? '"add_cross_attention" is true, but only decoders without it are supported' : null,
    ),
  );

/** Checks a config.json and fills in the defaults. Throws CheckpointError naming the fields. */
export function gpt2Config(json: Readonly<Record<string, unknown>>, path: string): Gpt2Config {
  // Only looked at: what the file does not say is not added.
  const { add_cross_attention: _cross, eos_token_id: _end, ...fields } = checked(schema, json, path);
  return { ...json, ...fields, model_type: "gpt2" };
}
