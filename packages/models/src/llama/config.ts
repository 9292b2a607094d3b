import { type ActivationName, activationNames } from "../activation.js";
import { ConfigFields, type ModelConfig } from "../config.js";
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

/** Checks a config.json and fills in the defaults of transformers' LlamaConfig. Throws CheckpointError naming the fields. */
export function llamaConfig(json: Readonly<Record<string, unknown>>, path: string): LlamaConfig {
  const fields = new ConfigFields(json, path);
  const width = fields.count("hidden_size");
  const heads = fields.count("num_attention_heads");
  const kvHeads = fields.count("num_key_value_heads", heads);
  const headDim = fields.count("head_dim", Math.floor(width / heads) || 1);
  if (heads % kvHeads !== 0) fields.problem(`"num_attention_heads" ${heads} is not a multiple of "num_key_value_heads" ${kvHeads}`);
  if (json["head_dim"] == null && width % heads !== 0)
    fields.problem(`"hidden_size" ${width} is not a multiple of "num_attention_heads" ${heads}`);
  if (headDim % 2 !== 0) fields.problem(`"head_dim" ${headDim} is odd, rotary embeddings need an even one`);
  readRope(json, fields);
  return fields.finish({
    model_type: "llama" as const,
    vocab_size: fields.count("vocab_size"),
    hidden_size: width,
    intermediate_size: fields.count("intermediate_size"),
    num_hidden_layers: fields.count("num_hidden_layers"),
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: headDim,
    max_position_embeddings: fields.count("max_position_embeddings", 2048),
    rms_norm_eps: fields.positive("rms_norm_eps", 1e-6),
    initializer_range: fields.positive("initializer_range", 0.02),
    hidden_act: fields.choice("hidden_act", activationNames, "silu"),
    attention_bias: fields.flag("attention_bias", false),
    mlp_bias: fields.flag("mlp_bias", false),
    tie_word_embeddings: fields.flag("tie_word_embeddings", false),
  });
}

/** The rotary embedding's parameters, wherever this config keeps them. */
export function ropeOf(config: LlamaConfig): RopeScaling {
  return readRope(config, new ConfigFields(config, "config.json"));
}
