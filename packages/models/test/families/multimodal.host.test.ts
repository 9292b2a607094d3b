import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { loadModel, saveModel } from "@lowrank/models";
import { device, tensor } from "@lowrank/tensor";
import { afterAll, describe, expect, test } from "vitest";
import { readFamily } from "../../src/families/read.js";

const dev = await device("cpu", { threads: 1 });
const folder = mkdtempSync(join(tmpdir(), "lowrank-towers-"));
afterAll(() => {
  dev.dispose();
  rmSync(folder, { recursive: true, force: true });
});

const modelOf = (name: string): string => fileURLToPath(new URL(`../../../../test/goldens-families/${name}/model`, import.meta.url));

/** The outer model's type, the text model's, its class, and what stands beside it in the checkpoint. */
const wrappers = [
  ["gemma3", "gemma3_text", "Gemma3ForCausalLM", "multi_modal_projector, vision_tower"],
  ["gemma3n", "gemma3n_text", "Gemma3nForCausalLM", "audio_tower, embed_audio, embed_vision, vision_tower"],
  ["gemma4", "gemma4_text", "Gemma4ForCausalLM", "embed_vision, vision_tower"],
  ["qwen3_5", "qwen3_5_text", "Qwen3_5ForCausalLM", "visual"],
  ["mistral3", "ministral3", "Ministral3ForCausalLM", "multi_modal_projector, vision_tower"],
] as const;

describe.each(wrappers)("%s", (name, type, className, towers) => {
  test("skips what is no text model with a word, and is saved as the text model alone, which says the same", async () => {
    const { model, warnings } = await loadModel(modelOf(name), { device: dev });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain(`${towers} (`);
    expect([...model.namedParameters().keys()].every((key) => /^(model\.language_model|lm_head)\./.test(key))).toBe(true);
    const out = join(folder, name);
    await saveModel(model, out);
    const saved = JSON.parse(readFileSync(join(out, "config.json"), "utf8")) as Record<string, unknown>;
    expect(saved).toMatchObject({ model_type: type, architectures: [className] });
    expect(saved["text_config"]).toBeUndefined();
    const again = await loadModel(out, { device: dev });
    expect(again.warnings).toEqual([]);
    expect([...again.model.namedParameters().keys()].every((key) => /^(model\.(?!language_model)|lm_head\.)/.test(key))).toBe(true);
    const ids = tensor([[3, 7, 5]], { dtype: "i32", device: dev });
    expect(await again.model.forward(ids).data()).toEqual(await model.forward(ids).data());
    for (const one of [model, again.model]) one.dispose();
  });
});

test.each([
  ["without a text_config", { text_config: null }, '"text_config" is null'],
  ["with a text model that we do not have", { text_config: { model_type: "cohere" } }, '"cohere", which is not supported'],
])("a config.json %s is refused by name", async (_, changed, words) => {
  const json = JSON.parse(readFileSync(join(modelOf("gemma3"), "config.json"), "utf8")) as object;
  const place = mkdtempSync(join(folder, "changed-"));
  writeFileSync(join(place, "config.json"), JSON.stringify({ ...json, ...changed }));
  await expect(loadModel(place, { device: dev })).rejects.toThrow(words);
});

test.each([
  ["mistral3", true],
  ["gemma3", true],
  ["qwen3_5", false],
])("without a word about it, the head of %s is its embeddings: %s", (name, isTied) => {
  const { tie_word_embeddings: _, ...json } = JSON.parse(readFileSync(join(modelOf(name), "config.json"), "utf8")) as Record<
    string,
    unknown
  >;
  const { tie_word_embeddings: _own, ...text } = json["text_config"] as Record<string, unknown>;
  expect(readFamily({ ...json, text_config: text }, "config.json").options.head.isTied).toBe(isTied);
});
