// Files in which the tensors of one parameter have several types, as tools that choose a type a tensor make them: read with the numbers of the blocks.
import { initModel, loadModel } from "@lowrank/models";
import { ggufEncode, memoryFiles, tensor, writeGguf } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { expect, test } from "vitest";
import { contentOf } from "./gguf.js";

const config = {
  model_type: "mixtral",
  ...{ vocab_size: 20, hidden_size: 32, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1 },
  ...{ max_position_embeddings: 32, num_local_experts: 3, num_experts_per_tok: 2 },
};
const experts = "model.layers.0.mlp.experts.gate_up_proj";

test.each<readonly [gates: string, ups: string, packing: string | null, isTold: boolean, isApart: boolean]>([
  ["Q8_0", "Q4_0", "Q8_0 and Q4_0", false, false],
  ["Q4_0", "F16", "Q4_0 and f16", false, false],
  ["BF16", "Q5_1", "bf16 and Q5_1", false, false],
  ["Q4_0", "Q4_0", "Q4_0", false, false],
  ["F16", "BF16", null, false, false],
  ["Q8_0", "Q4_0", null, true, true],
])("gates in %s and ups in %s", async (gates, ups, packing, isTold, isApart) => {
  const device = await testDevice();
  const source = await initModel(config, { device, seed: 5 });
  const { metadata, tensors } = await contentOf(source);
  source.dispose();
  const written = [...tensors].flatMap(([name, { shape, values }]) => {
    const [, part] = /\.ffn_(gate|up)_exps\.weight$/.exec(name) ?? [];
    const type: string = part === "gate" ? gates : part === "up" ? ups : "F32";
    const of = (own: string, [...size]: readonly number[], numbers: Float32Array) => ({
      ...{ name: own, type, shape: size },
      chunks: () => [ggufEncode(type, numbers, { path: "m.gguf", name: own, shape: size })],
    });
    if (!isApart || part === undefined) return [of(name, shape, values)];
    const [count = 1, ...rest] = shape;
    const length = values.length / count;
    // Before April 2024: a tensor for each expert.
    return Array.from({ length: count }, (_, expert) =>
      of(name.replace("_exps", `.${expert}`), rest, values.slice(expert * length, (expert + 1) * length)),
    );
  });
  const files = memoryFiles();
  await files.write("m.gguf", writeGguf("m.gguf", { metadata, tensors: written }));
  const ids = tensor([[1, 5, 9, 4]], { dtype: "i32", device });
  const [kept, exact] = [await loadModel("m.gguf", { device, files }), await loadModel("m.gguf", { device, files, dtype: "f32" })];
  const [found, wanted] = [await kept.model.forward(ids).data(), await exact.model.forward(ids).data()];
  // bf16 where there are too many types, and activations of 16 bits a block.
  const most = isTold ? 2e-2 : 1e-4;
  expect(Math.max(...wanted.map((value, i) => Math.abs(value - (found[i] ?? Number.NaN))))).toBeLessThan(most);
  expect(kept.model.namedParameters().get(experts)?.packing?.type ?? null).toBe(packing);
  const told = kept.warnings.filter((text) => text.includes("several types, too many for one expression"));
  expect(told).toEqual(isTold ? [expect.stringContaining(`${experts} (Q8_0, Q4_0)`)] : []);
  for (const { model } of [kept, exact]) model.dispose();
});
