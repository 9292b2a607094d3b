import { openAsBlob } from "node:fs";
import { type CausalLM, modelOf } from "@lowrank/models";
import { blobSource, type Device, readGguf, type Tensor } from "@lowrank/tensor";

/** GGUF's names of a llama's tensors, and the checkpoint's. */
const names: Readonly<Record<string, string>> = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  attn_norm: "input_layernorm",
  ffn_norm: "post_attention_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};

/**
 * A tied llama of a GGUF file with its weights as they lie there, for timing: rows of queries and keys keep llama.cpp's order, which changes what
 * is computed, and not how long it takes.
 */
export async function ggufLlama(path: string, device: Device): Promise<CausalLM> {
  const file = await readGguf(blobSource(await openAsBlob(path), path));
  const tensors = new Map<string, Tensor>();
  for (const name of file.entries.keys()) {
    const [, layer, own = ""] = /^(?:blk\.(\d+)\.)?(\w+)\.weight$/.exec(name) ?? [];
    const known = names[own];
    if (known === undefined) throw new Error(`bench: ${path} has a tensor "${name}".`);
    tensors.set(`${layer === undefined ? known : `model.layers.${layer}.${known}`}.weight`, await file.weight(name, { device }));
  }
  const field = (name: string): number => Number(file.metadata.get(`llama.${name}`));
  const embedding = tensors.get("model.embed_tokens.weight");
  const config = {
    model_type: "llama",
    vocab_size: embedding?.shape[0],
    hidden_size: field("embedding_length"),
    intermediate_size: field("feed_forward_length"),
    num_hidden_layers: field("block_count"),
    num_attention_heads: field("attention.head_count"),
    num_key_value_heads: field("attention.head_count_kv"),
    max_position_embeddings: field("context_length"),
    rms_norm_eps: field("attention.layer_norm_rms_epsilon"),
    rope_theta: field("rope.freq_base"),
    tie_word_embeddings: true,
  };
  await file.close();
  return modelOf(config, tensors);
}
