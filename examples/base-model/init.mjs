/**
 * A fresh Llama checkpoint: transformers' initialisation (every matrix from normal(0, 0.02), every norm 1), seeded.
 *
 *     node init.mjs --out DIR [--vocab-size 1024] [--hidden 128] [--intermediate 384] [--layers 5] [--heads 4] [--context 256] [--seed 1]
 * writes DIR/config.json and DIR/model.safetensors (f32).
 */
import { mkdirSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { randomNumbers } from "../random.mjs";
import { encodeSafetensors } from "./safetensors.mjs";

/** The `config.json` of a small Llama with tied embeddings. */
export function llamaConfig({ vocabSize, hidden, intermediate, layers, heads, context }) {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: vocabSize,
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: heads,
    head_dim: hidden / heads,
    hidden_act: "silu",
    max_position_embeddings: context,
    rope_theta: 10000,
    rms_norm_eps: 1e-5,
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: true,
    initializer_range: 0.02,
    bos_token_id: 0,
    eos_token_id: 0,
    torch_dtype: "float32",
  };
}

/** @returns {Map<string, { shape: number[], values: Float32Array }>} the parameters, by their names in the checkpoint */
export function randomLlama(config, seed) {
  const random = randomNumbers(seed);
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()); // Box and Muller 1958
  const { hidden_size: hidden, intermediate_size: intermediate, initializer_range: deviation } = config;
  const tensors = new Map();
  const matrix = (name, rows, columns) =>
    tensors.set(name, { shape: [rows, columns], values: Float32Array.from({ length: rows * columns }, () => deviation * normal()) });
  const ones = (name) => tensors.set(name, { shape: [hidden], values: new Float32Array(hidden).fill(1) });

  matrix("model.embed_tokens.weight", config.vocab_size, hidden);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const prefix = `model.layers.${layer}`;
    ones(`${prefix}.input_layernorm.weight`);
    for (const projection of ["q_proj", "k_proj", "v_proj", "o_proj"]) matrix(`${prefix}.self_attn.${projection}.weight`, hidden, hidden);
    ones(`${prefix}.post_attention_layernorm.weight`);
    matrix(`${prefix}.mlp.gate_proj.weight`, intermediate, hidden);
    matrix(`${prefix}.mlp.up_proj.weight`, intermediate, hidden);
    matrix(`${prefix}.mlp.down_proj.weight`, hidden, intermediate);
  }
  ones("model.norm.weight");
  return tensors;
}

/** Writes config.json and model.safetensors of a fresh model into `directory`. */
export function writeFreshLlama(directory, { seed = 1, ...sizes }) {
  const config = llamaConfig(sizes);
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, "config.json"), `${JSON.stringify(config, null, 2)}\n`);
  writeFileSync(join(directory, "model.safetensors"), encodeSafetensors(randomLlama(config, seed), "F32"));
}

if (process.argv[1] && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) {
  const number = (value) => ({ type: "string", default: String(value) });
  const { values } = parseArgs({
    options: {
      out: { type: "string" },
      "vocab-size": number(1024),
      hidden: number(128),
      intermediate: number(384),
      layers: number(5),
      heads: number(4),
      context: number(256),
      seed: number(1),
    },
  });
  if (!values.out) throw new Error("init.mjs: --out DIR is missing. Say where the checkpoint is to be written.");
  const { out, "vocab-size": vocabSize, ...sizes } = values;
  writeFreshLlama(out, {
    vocabSize: Number(vocabSize),
    ...Object.fromEntries(Object.entries(sizes).map(([name, value]) => [name, Number(value)])),
  });
}
