import { type ActivationName, activationNames } from "../activation.js";
import { ConfigFields, type ModelConfig } from "../config.js";

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

/** Checks a config.json and fills in the defaults of transformers' GPT2Config. Throws CheckpointError naming the fields. */
export function gpt2Config(json: Readonly<Record<string, unknown>>, path: string): Gpt2Config {
  const fields = new ConfigFields(json, path);
  const width = fields.count("n_embd", 768);
  const heads = fields.count("n_head", 12);
  if (width % heads !== 0) fields.problem(`"n_embd" ${width} is not a multiple of "n_head" ${heads}`);
  if (json["add_cross_attention"] === true) fields.problem('"add_cross_attention" is true, but only decoders without it are supported');
  return fields.finish({
    model_type: "gpt2" as const,
    vocab_size: fields.count("vocab_size", 50257),
    n_embd: width,
    n_layer: fields.count("n_layer", 12),
    n_head: heads,
    n_positions: fields.count("n_positions", 1024),
    n_inner: json["n_inner"] === null || json["n_inner"] === undefined ? null : fields.count("n_inner"),
    activation_function: fields.choice("activation_function", activationNames, "gelu_new"),
    layer_norm_epsilon: fields.positive("layer_norm_epsilon", 1e-5),
    initializer_range: fields.positive("initializer_range", 0.02),
    scale_attn_weights: fields.flag("scale_attn_weights", true),
    scale_attn_by_inverse_layer_idx: fields.flag("scale_attn_by_inverse_layer_idx", false),
    tie_word_embeddings: fields.flag("tie_word_embeddings", true),
  });
}
