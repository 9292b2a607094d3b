import { largest, smallest } from "@lowrank/tensor";
import type { GgufField, GgufKey, GgufTargets } from "./description.js";
import type { GgufReader } from "./facts.js";
import { shortest } from "./keys.js";
import { llamaNames, normsAroundNames, queryKeyNorms } from "./targets.js";

type Json = Readonly<Record<string, unknown>>;

// What Gemma 3n and Gemma 4 share: embeddings per layer, and last layers that see the keys and values of others.

const u32 = (value: number): GgufField => ({ type: "u32", value });

/** One number where all layers have the same, else a list. */
export function perLayerField(values: readonly number[]): GgufField {
  return smallest(values) === largest(values) ? u32(values[0] ?? 0) : { type: "i32[]", value: values };
}

/** What both are filed by. */
interface LayersConfig {
  readonly num_hidden_layers: number;
  readonly num_kv_shared_layers: number;
  readonly sliding_window: number;
  readonly hidden_size_per_layer_input: number;
  readonly vocab_size: number;
  readonly vocab_size_per_layer_input: number;
}

/** Windows, shared layers, and the size of embeddings per layer. */
export function gemmaLayerKeys<Config extends LayersConfig>(isLocal: (config: Config, layer: number) => boolean): GgufKey<Config> {
  return {
    read: (file) => {
      const count = file.layerCount();
      const pattern = file.truths("attention.sliding_window_pattern", count);
      if (!pattern) throw file.wrong("attention.sliding_window_pattern", undefined, "a truth value for each layer");
      return {
        sliding_window: file.count("attention.sliding_window"),
        layer_types: pattern.map((local) => (local ? "sliding_attention" : "full_attention")),
        num_kv_shared_layers: file.count("attention.shared_kv_layers", 0),
        hidden_size_per_layer_input: file.count("embedding_length_per_layer_input", 0),
        vocab_size_per_layer_input: file.shape("per_layer_token_embd.weight")?.[0],
      };
    },
    write: (config) => ({
      "attention.sliding_window": u32(config.sliding_window),
      "attention.sliding_window_pattern": {
        type: "bool[]",
        value: Array.from({ length: config.num_hidden_layers }, (_, layer) => isLocal(config, layer)),
      },
      "attention.shared_kv_layers": u32(config.num_kv_shared_layers),
      embedding_length_per_layer_input: u32(config.hidden_size_per_layer_input),
    }),
  };
}

/** Names of both in each layer. */
export const gemmaLayerNames: GgufTargets = {
  ...llamaNames,
  ...queryKeyNorms,
  ...normsAroundNames,
  per_layer_input_gate: "inp_gate",
  per_layer_projection: "proj",
  post_per_layer_input_norm: "post_norm",
};

/** And beside the layers. The table of embeddings per layer has a row for each token in a file, zeros for those that have none. */
export function perLayerNames({ vocab_size: tokens }: LayersConfig): GgufTargets {
  return {
    embed_tokens_per_layer: ({ shape: [rows = 0, columns = 0] }) => {
      const file = Math.max(rows, tokens);
      return {
        tensors: [{ name: "per_layer_token_embd.weight", shape: [file, columns] }],
        ...(file !== rows && { changes: [{ kind: "rows" as const, width: columns, file, model: rows }] }),
      };
    },
    per_layer_model_projection: "per_layer_model_proj",
    per_layer_projection_norm: "per_layer_proj_norm",
  };
}

/** Tensors of layers that see the keys and values of others: in some files, and nobody reads them. */
export const unreadBlocks: RegExp = /^blk\.\d+\.attn_(k|v|k_norm)\.weight$/;

/** θ of both kinds of layers; a part of each head turns in layers without a window where a file says what does not. */
export function localTheta(file: GgufReader): Json {
  return { rope_type: "default", rope_theta: shortest(file.number("rope.freq_base_swa", 10000)) };
}
