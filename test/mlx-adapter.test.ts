// mlx-lm's own adapters with mlx-lm's logits, where they lie beside the clone (shared/quant/SOURCES-others.md).
import { join } from "node:path";
import { loadAdapter, saveAdapter, saveMlxAdapter } from "@lowrank/lora";
import { loadModel } from "@lowrank/models";
import { bytesSource, type FileSystem, fileSource, memoryFiles, readSafetensors, type SafetensorsFile, tensor } from "@lowrank/tensor";
import { sharedDir, testDevice } from "test-support";
import { describe, expect, test } from "vitest";

const folder = sharedDir("quant", "mlx-adapter");
const at = (...parts: readonly string[]): string => join(folder ?? "", ...parts);
const dev = await testDevice();

async function valuesOf(file: SafetensorsFile): Promise<Map<string, readonly number[]>> {
  const found = new Map<string, readonly number[]>();
  for (const name of file.entries.keys()) found.set(name, Array.from(await file.values(name), Math.fround));
  return found;
}

const inMemory = async (files: ReturnType<typeof memoryFiles>, path: string): Promise<Map<string, readonly number[]>> =>
  valuesOf(await readSafetensors(bytesSource(files.files.get(path) ?? new Uint8Array(), path)));
const onDisk = async (path: string): Promise<Map<string, readonly number[]>> => {
  const file = await readSafetensors(await fileSource(path));
  try {
    return await valuesOf(file);
  } finally {
    await file.close();
  }
};

/** The files of a folder, put into memory where something else is written. */
type Files = FileSystem & ReturnType<typeof memoryFiles>;

describe.skipIf(folder === null)("mlx-lm's adapters", () => {
  test.each(["lora", "lora-all", "lora-head", "dora"])("%s", async (name) => {
    const { model } = await loadModel(at("model"), { device: dev, dtype: "f32" });
    const adapter = await loadAdapter(model, at(name, "mlx"));
    const io = await readSafetensors(await fileSource(at("io.safetensors")));
    const ids = await io.values("input_ids");
    const expected = await io.values(`${name}.logits`);
    await io.close();
    const logits = await model.forward(tensor([...ids], { dtype: "i32", device: dev, shape: [2, 10] })).data();
    let difference = 0;
    for (const [i, value] of logits.entries()) difference = Math.max(difference, Math.abs(value - (expected[i] ?? 0)));
    expect(difference).toBeLessThan(5e-4);

    // Both ways the tensors are the very ones that mlx-lm and PEFT wrote.
    const files: Files = memoryFiles();
    await saveAdapter(adapter, "peft", { files });
    const saved = await inMemory(files, "peft/adapter_model.safetensors");
    for (const key of saved.keys()) if (key.endsWith(".base_layer.weight")) saved.delete(key); // the base's own, as PEFT repeats it by default
    expect(saved).toEqual(await onDisk(at(name, "peft", "adapter_model.safetensors")));
    adapter.disable();
    const fromPeft = await loadAdapter(model, at(name, "peft"));
    await saveMlxAdapter(fromPeft, "mlx", { files });
    expect(await inMemory(files, "mlx/adapters.safetensors")).toEqual(await onDisk(at(name, "mlx", "adapters.safetensors")));
    model.dispose();
  });
});
