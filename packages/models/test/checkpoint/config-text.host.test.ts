import { initModel, loadModel, saveModel } from "@lowrank/models";
import { device, memoryFiles, openFile, readText } from "@lowrank/tensor";
import { expect, test } from "vitest";
import { configText, floatNames, namesIn } from "../../src/checkpoint/config-text.js";

const text = '{"a": 0.0, "b": 3, "c": {"d": 1e5, "e": [1.0, 2]}, "f": "1.5 \\"g\\": 2.0", "h": 0.25}';

test("the names of a text, and those with numbers that Python reads as floats", () => {
  expect([...namesIn(text)]).toEqual(["a", "b", "c", "d", "e", "f", "h"]);
  expect([...floatNames(text)]).toEqual(["a", "d", "e", "h"]);
});

test("whole numbers stay floats where they were, in lists and objects too, and infinity is written as transformers writes it", () => {
  const written = configText({ ...JSON.parse(text), i: Number.POSITIVE_INFINITY }, floatNames(text));
  expect(JSON.parse(written)).toEqual({ ...JSON.parse(text), i: { __float__: "Infinity" } });
  for (const part of ['"a": 0.0,', '"b": 3,', '"d": 100000.0,', '"h": 0.25,', '"f": "1.5 \\"g\\": 2.0"']) expect(written).toContain(part);
  expect(written.replace(/\s/g, "")).toContain('"e":[1.0,2.0]');
});

const config = {
  model_type: "granitemoehybrid",
  ...{ vocab_size: 5, hidden_size: 4, intermediate_size: 3, num_hidden_layers: 1, num_attention_heads: 1, layer_types: ["attention"] },
  ...{ num_local_experts: 0, num_experts_per_tok: 0, shared_intermediate_size: 3, position_embedding_type: "rope", mamba_n_heads: 4 },
};

test("a config.json is saved with the floats and the fields that it was read with", async () => {
  const files = memoryFiles();
  const dev = await device("cpu", { threads: 1 });
  const textOf = async (folder: string): Promise<string> => {
    const source = await openFile(files, `${folder}/config.json`);
    return source ? readText(source) : "";
  };
  await saveModel(await initModel(config, { device: dev, seed: 1 }), "/made", { files });
  // Of what was filled in, transformers' class says float.
  expect(await textOf("/made")).toContain('"embedding_multiplier": 1.0');
  const own = { ...JSON.parse(await textOf("/made")), attention_dropout: 0, residual_multiplier: undefined };
  await files.write("/made/config.json", new TextEncoder().encode(configText(own, new Set(["attention_dropout"]))));
  const { model } = await loadModel("/made", { device: dev, files });
  await saveModel(model, "/again", { files });
  expect(await textOf("/again")).toContain('"attention_dropout": 0.0');
  expect(await textOf("/again")).not.toContain("residual_multiplier");
});
