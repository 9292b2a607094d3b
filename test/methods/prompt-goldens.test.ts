// Slow: training steps of whole models, planned case by case.
// Virtual tokens (prefix tuning, prompt tuning, p-tuning and its second version) and bottleneck adapters, against PEFT and PyTorch.
import { join } from "node:path";
import { type Adapter, AdapterError, type AdapterOptions, applyAdapter, merge, parameterReport, saveAdapter } from "@lowrank/lora";
import { type Device, memoryFiles, realizeNow, type SafetensorsFile } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";
import {
  type Case,
  casesInShare,
  everyMethodCase,
  expectCurve,
  expectLogits,
  expectLossAndGradients,
  integers,
  io,
  load,
  type Model,
  methodCases,
  modelOf,
  opened,
  relativeNorm,
  testAdapter,
  tolerance,
} from "../golden.js";
import { ofText, textOf } from "./prompt.js";

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

const casesOf = (...names: readonly string[]): readonly Case[] =>
  methodCases.filter(({ settings }) => names.includes(settings.method ?? ""));

/** The method's name and options for a case, from its adapter_config.json. */
async function optionsOf(golden: Case): Promise<AdapterOptions> {
  const adapter = await load(await modelOf(golden), golden, "adapter_init");
  const method = golden.settings.method === "P_TUNING_V2" ? "ptuning-v2" : adapter.method.name;
  return { ...(adapter.options as object), method } as AdapterOptions;
}

/** A case's name of a parameter, out of ours: PEFT's plain tables are an embedding too. */
const torchName = (name: string): string =>
  (name === "prompt_embeddings" ? "prompt_encoder.embedding.weight" : name).replace("prompt_encoder.", "prompt_encoder.default.");

async function fillFrom(adapter: Adapter, file: SafetensorsFile, prefix: string): Promise<void> {
  for (const [name, parameter] of adapter.namedParameters())
    parameter.assign(await file.tensor(`${prefix}${torchName(name)}`, { device: dev, dtype: "f32" }));
  realizeNow(adapter.parameters());
}

/** An adapter with the case's first values: of its encoder where the case has one, else of the file. */
async function adapterOf(model: Model, golden: Case): Promise<Adapter> {
  const adapter = applyAdapter(model, await optionsOf(golden));
  await io(golden, async (file) => {
    if ([...file.entries.keys()].some((name) => name.startsWith("init."))) return fillFrom(adapter, file, "init.");
    await opened(join(golden.folder, "adapter_init", "adapter_model.safetensors"), async (stored) => {
      for (const [name, parameter] of adapter.namedParameters()) parameter.assign(await stored.tensor(name, { device: dev, dtype: "f32" }));
      realizeNow(adapter.parameters());
    });
  });
  return adapter;
}

const promptCases = casesOf("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "P_TUNING_V2");

test("there are cases of every method", () => {
  const count = (...names: readonly string[]): number =>
    everyMethodCase.filter(({ settings }) => names.includes(settings.method ?? "")).length;
  expect(count("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "P_TUNING_V2")).toBe(12);
  expect(count("BOTTLENECK")).toBe(8);
});

describe.each(casesInShare(promptCases))("$name", (golden) => {
  test("logits, loss and every gradient, the encoder's too", async () => {
    const model = await modelOf(golden);
    await io(golden, async (file) => {
      const ids = await integers(file, "input_ids");
      await expectLogits(ofText(model, ids), file, "logits_base");
      const adapter = await adapterOf(model, golden);
      expect(parameterReport(model, adapter).trainable).toBe(golden.settings.trainable);
      await expectLogits(ofText(model, ids), file, "logits_adapter");
      const named = new Map([...adapter.namedParameters()].map(([name, t]) => [torchName(name).replace(".default", ""), t]));
      await expectLossAndGradients(model, named, file, adapter.training);
    });
  });

  test("the loss at every step of training, the tensors at its end, and what is saved of them", async () => {
    const model = await modelOf(golden);
    const adapter = await adapterOf(model, golden);
    await io(golden, async (file) => {
      await expectCurve(model, adapter.namedParameters(), file, golden.settings, adapter.training);
      for (const [name, parameter] of adapter.namedParameters()) {
        const stored = `final.${torchName(name)}`;
        if (file.entries.has(stored)) expect(await relativeNorm(parameter, await file.values(stored)), name).toBeLessThan(tolerance.final);
      }
      await expectLogits(ofText(model, await integers(file, "input_ids")), file, "logits_final");
    });
    await opened(join(golden.folder, "adapter_final", "adapter_model.safetensors"), async (file) => {
      const saved = adapter.savedTensors();
      expect([...saved.keys()]).toEqual([...file.entries.keys()]);
      for (const [name, value] of saved) expect(await relativeNorm(value, await file.values(name)), name).toBeLessThan(tolerance.final);
    });
  });

  test("PEFT's file of the trained adapter gives its logits, and goes out as it came in", async () => {
    const model = await modelOf(golden);
    const adapter = await load(model, golden, "adapter_final");
    await io(golden, async (file) => {
      const ids = await integers(file, "input_ids");
      await expectLogits(ofText(model, ids), file, "logits_final");
      expect(model.virtualTokens.length).toBe((golden.settings as { readonly virtual_tokens?: number }).virtual_tokens);
      expect(() => merge(adapter)).toThrow(AdapterError);
      const files = memoryFiles();
      await saveAdapter(adapter, "saved", { files });
      expect(JSON.parse(await textOf(files, "saved/adapter_config.json"))).toEqual(
        JSON.parse(await readConfigOf(join(golden.folder, "adapter_final"))),
      );
      adapter.disable();
      expect(model.virtualTokens.length).toBe(0);
      await expectLogits(ofText(model, ids), file, "logits_base");
    });
  });
});

describe.each(casesInShare(casesOf("BOTTLENECK")))("$name", (golden) => testAdapter(golden));

async function readConfigOf(folder: string): Promise<string> {
  const { readFile } = await import("node:fs/promises");
  return readFile(join(folder, "adapter_config.json"), "utf8");
}
