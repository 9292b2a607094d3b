// Tensors that checkpoints of some families hold beside those of the text model, and names that older ones have for these.
import { initModel, loadModel } from "@lowrank/models";
import { device, joined, memoryFiles, type Tensor, writeSafetensors, zeros } from "@lowrank/tensor";
import { expect, test } from "vitest";

type Json = Readonly<Record<string, unknown>>;

const dev = await device("reference");
const sizes = {
  vocab_size: 7,
  hidden_size: 8,
  intermediate_size: 3,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 4,
  max_position_embeddings: 16,
  tie_word_embeddings: true,
};
const net = { layer_types: ["linear_attention", "full_attention"], linear_num_key_heads: 1, linear_num_value_heads: 1 };
const heads = { linear_key_head_dim: 2, linear_value_head_dim: 2, head_dim: 8 };
const latent = { q_lora_rank: null, kv_lora_rank: 3, qk_nope_head_dim: 2, qk_rope_head_dim: 2, v_head_dim: 2, moe_intermediate_size: 2 };
const shared = { layer_types: ["full_attention", "full_attention"], num_kv_shared_layers: 1, vocab_size_per_layer_input: 7 };
const streams = { ...shared, hidden_size_per_layer_input: 2, laurel_rank: 2 };
const keysValues = ["k_proj", "v_proj", "k_norm"].map((name) => `layers.1.self_attn.${name}.weight`);

/** A text model, what stands in its file beside it, what its names begin with there, and the word that is said. */
const cases: readonly (readonly [type: string, fields: Json, beside: readonly string[], begin: string, word: RegExp | null])[] = [
  [
    "deepseek_v3",
    { ...latent, first_k_dense_replace: 2 },
    ["model.layers.2.eh_proj.weight"],
    "model.",
    /: layers\.2 \(1 tensors\) belong to no/,
  ],
  ["qwen3_5_text", { ...net, ...heads }, ["mtp.fc.weight"], "model.", /: mtp \(1 tensors\) belong to no/],
  ["qwen3_5_text", { ...net, ...heads }, [], "model.language_model.", null],
  ["gemma3n_text", streams, keysValues.map((name) => `model.${name}`), "model.", null],
  ["gemma3n_text", streams, keysValues.map((name) => `model.language_model.${name}`), "model.language_model.", null],
  ["gemma4_text", { ...shared, hidden_size_per_layer_input: 0 }, keysValues.map((name) => `model.${name}`), "model.", null],
];

test.each(cases)("%s %j is read beside %j, with names that begin with %s", async (type, fields, beside, begin, word) => {
  const config = { ...sizes, ...fields, model_type: type };
  const weights = (await initModel(config, { device: dev, seed: 1 })).namedParameters();
  const tensors = new Map<string, Tensor>([...weights].map(([name, value]) => [name.replace("model.", begin), value] as const));
  for (const name of beside) tensors.set(name, zeros([2, 2], { device: dev }));
  const files = memoryFiles({
    "m/config.json": JSON.stringify(config),
    "m/model.safetensors": await joined(writeSafetensors(tensors, { format: "pt" })),
  });
  const { model, warnings } = await loadModel("m", { device: dev, files });
  expect([...model.namedParameters().keys()]).toEqual([...weights.keys()]);
  expect(warnings).toEqual(word ? [expect.stringMatching(word)] : []);
});

test("a layer further behind than those that predict is still refused", async () => {
  const config = { ...sizes, ...latent, first_k_dense_replace: 2, model_type: "deepseek_v3" };
  const weights = (await initModel(config, { device: dev, seed: 1 })).namedParameters();
  const name = "model.layers.3.eh_proj.weight";
  const tensors = new Map<string, Tensor>([...weights, [name, zeros([2, 2], { device: dev })]]);
  const bytes = await joined(writeSafetensors(tensors, { format: "pt" }));
  const files = memoryFiles({ "m/config.json": JSON.stringify(config), "m/model.safetensors": bytes });
  await expect(loadModel("m", { device: dev, files })).rejects.toThrow(`unexpected: ${name}`);
});
