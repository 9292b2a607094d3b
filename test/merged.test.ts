// What `mergedParameters` gives and `saveModel` writes, against PEFT: logits of each method's trained adapter out of the merged checkpoint, also
// where a tied weight has to part; and merging into 16 bits and of two adapters against PEFT's own merge.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { adapterDigest, loadAdapter, mergedParameters } from "@lowrank/lora";
import { loadModel, saveModel } from "@lowrank/models";
import type { Device, Tensor } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { everyMethodCase, expectLogits, integers, io, load, type Model, modelOf, opened } from "./golden.js";

const scratch = mkdtempSync(join(tmpdir(), "lowrank-merged-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

const config = (folder: string): Record<string, unknown> => JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));

/** Writes what adapters make of a model into a folder of its own. */
async function written(name: string, model: Model, folders: readonly string[], dtype: "f32" | "f16" | "bf16"): Promise<string> {
  const adapters = [];
  for (const folder of folders) adapters.push(await loadAdapter(model, folder, { onWarning: () => {} }));
  const out = join(scratch, name.replace("/", "-"));
  const merged = [];
  for (const adapter of adapters) merged.push(await adapterDigest(adapter));
  await saveModel(model, out, { tensors: mergedParameters(adapters), merged, dtype });
  return out;
}

describe("merged checkpoints of each method", () => {
  // Two parameters on one memory: refused by name when it is loaded.
  const isRefused = (name: string): boolean => name.endsWith("/llama-tied-embedding-ensured");
  // No PEFT merges BitFit, but its biases can become the model's.
  const mergeable = everyMethodCase.filter(
    ({ name, isAdapter, settings }) => isAdapter && !isRefused(name) && (settings.merge !== false || settings.method === "BITFIT"),
  );
  test.each(mergeable)("$name: computes what the adapter did beside the base, which stays as it is", async (golden) => {
    const model = await modelOf(golden);
    const adapter = await load(model, golden, "adapter_final", { onWarning: () => {} });
    const out = join(scratch, golden.name.replace("/", "-"));
    await saveModel(model, out, { tensors: mergedParameters([adapter]), merged: [await adapterDigest(adapter)] });
    await io(golden, async (file) => {
      const ids = await integers(file, "input_ids");
      await expectLogits(model.forward(ids), file, "logits_final");
      adapter.disable();
      await expectLogits(model.forward(ids), file, "logits_base");
      const merged = await loadModel(out, { device: dev });
      expect(merged.warnings.join()).not.toContain("lowrank_merged");
      await expectLogits(merged.model.forward(ids), file, "logits_final");
      // Where PEFT's merge keeps the function, it is PEFT's too.
      if (golden.settings.merge_exact !== false && file.entries.has("logits_merged"))
        await expectLogits(merged.model.forward(ids), file, "logits_merged");
    });
  });

  test("a tied head that an adapter changes alone becomes a matrix of its own", async () => {
    const golden = everyMethodCase.find(({ name }) => name.endsWith("/llama-tied-modules-to-save-untied"));
    if (!golden) throw new Error("the case is missing");
    const model = await modelOf(golden);
    const tensors = mergedParameters([await load(model, golden, "adapter_final", { onWarning: () => {} })]);
    expect([...tensors.keys()]).toContain("lm_head.weight");
    expect([...tensors.keys()]).not.toContain("model.embed_tokens.weight");
    const out = join(scratch, "untied");
    await saveModel(model, out, { tensors });
    expect(config(out)).toMatchObject({ tie_word_embeddings: false });
  });
});

describe("merging as PEFT does", () => {
  const goldens = fileURLToPath(new URL("./goldens-merge/merge.safetensors", import.meta.url));
  const methods = fileURLToPath(new URL("../packages/lora/test/goldens/", import.meta.url));
  const finals = (...names: readonly string[]): string[] => names.map((name) => join(methods, name, "adapter_final"));
  const [one, two] = ["llama-all-linear", "llama-odd-ranks"];
  test.each([
    { name: "bf16", dtype: "bf16", adapters: finals(one) },
    { name: "f16", dtype: "f16", adapters: finals(one) },
    { name: "two", dtype: "f32", adapters: finals(one, two) },
    { name: "two-bf16", dtype: "bf16", adapters: finals(one, two) },
  ] as const)("$name: no further from the adapters beside the base than PEFT's merge, rounded once", async ({ name, dtype, adapters }) => {
    const { model } = await loadModel(join(methods, "models", "llama"), { device: dev, dtype });
    const out = await written(name, model, adapters, dtype);
    const merged = await loadModel(out, { device: dev });
    expect(config(out)["lowrank_merged"]).toHaveLength(adapters.length);
    await opened(goldens, async (file) => {
      const ids = await integers(file, "input_ids");
      const [beside, theirs] = [await file.values(`${name}.beside`), await file.values(`${name}.merged`)];
      const ours = await merged.model.forward(ids).data();
      const worst = (logits: ArrayLike<number>): number =>
        beside.reduce((most, value, i) => Math.max(most, Math.abs(value - (logits[i] ?? 0))), 0);
      // In f32 both are rounding of sums; in 16 bits either may be lucky in what little reaches the logits.
      expect(worst(ours)).toBeLessThan(dtype === "f32" ? 1e-4 : 2 * worst(theirs));
      const loaded = [];
      for (const folder of adapters) loaded.push(await loadAdapter(model, folder));
      const parameters = merged.model.namedParameters();
      let [own, peft] = [0, 0];
      for (const [parameter, value] of mergedParameters(loaded)) {
        await expectRounded(parameters.get(parameter) as Tensor, value, dtype);
        const exact = await value.data();
        own += squares(await (parameters.get(parameter) as Tensor).data(), exact);
        peft += squares(await file.values(`${name}.weight.${parameter}`), exact);
      }
      // PEFT rounds the difference first, and then the sum.
      if (dtype === "f32") expect(Math.max(own, peft)).toBeLessThan(1e-10);
      else expect(own).toBeLessThanOrEqual(peft);
    });
  });

  const squares = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
    Array.from(a).reduce((sum, value, i) => sum + (value - (b[i] ?? 0)) ** 2, 0);

  /** What is stored is the nearest number of its dtype. */
  async function expectRounded(stored: Tensor, value: Tensor, dtype: "f32" | "f16" | "bf16"): Promise<void> {
    const [own, exact] = [await stored.data(), await value.cast(dtype).cast("f32").data()];
    expect(Array.from(own)).toEqual(Array.from(exact));
    // Half a unit in the last place of 8 or 11 bits.
    const [numbers, half] = [await value.data(), dtype === "bf16" ? 2 ** -8 : dtype === "f16" ? 2 ** -11 : 0];
    for (const [i, number] of numbers.entries())
      expect(Math.abs((own[i] ?? 0) - number)).toBeLessThanOrEqual(Math.abs(number) * half + 6e-8);
  }
});
