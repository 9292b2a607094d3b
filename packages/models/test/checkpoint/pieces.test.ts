// A mixture's experts, which checkpoints hold apart and the model as one tensor: read, saved, and read again.
import { initModel, loadModel, saveModel } from "@lowrank/models";
import { memoryFiles, readSafetensors, tensor } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { expect, test } from "vitest";

const dev = await testDevice();
const config = {
  model_type: "mixtral",
  vocab_size: 11,
  hidden_size: 8,
  intermediate_size: 6,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  num_local_experts: 3,
  max_position_embeddings: 16,
};

test("experts are saved a tensor each under the checkpoint's names, and read back", async () => {
  const files = memoryFiles();
  const model = await initModel(config, { device: dev, seed: 3 });
  const name = "model.layers.0.mlp.experts.gate_up_proj";
  const all = await (model.namedParameters().get(name) as ReturnType<typeof tensor>).data();
  await saveModel(model, "/saved", { files });
  const file = await readSafetensors((await files.open("/saved/model.safetensors")) as never);
  const inFile = [...file.entries.keys()].filter((entry) => !entry.includes("self_attn") && entry.includes("layers.0"));
  const each = [0, 1, 2].flatMap((expert) => [1, 2, 3].map((w) => `model.layers.0.block_sparse_moe.experts.${expert}.w${w}.weight`));
  expect(inFile.sort()).toEqual(
    [
      ...each,
      "model.layers.0.block_sparse_moe.gate.weight",
      "model.layers.0.input_layernorm.weight",
      "model.layers.0.post_attention_layernorm.weight",
    ].sort(),
  );
  // Of expert 1: w1, the gate, then w3.
  const [gate, up] = [1, 3].map((w) => file.values(`model.layers.0.block_sparse_moe.experts.1.w${w}.weight`));
  expect([...((await gate) as Float64Array), ...((await up) as Float64Array)]).toEqual([...all.slice(96, 192)]);
  await file.close();

  const ids = tensor([[1, 2, 3, 4]], { dtype: "i32", device: dev });
  const { model: again } = await loadModel("/saved", { device: dev, files });
  expect([...(await again.forward(ids).data())]).toEqual([...(await model.forward(ids).data())]);
});
