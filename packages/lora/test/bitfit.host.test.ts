// BitFit where layers have no biases: they are given some.
import { grad, optim } from "@lowrank/autograd";
import { type Device, device, memoryFiles, type Tensor } from "@lowrank/tensor";
import { beforeAll, expect, test } from "vitest";
import { type Adapter, AdapterError, applyAdapter, loadAdapter, merge, NotApplicableError, peftConfig, saveAdapter } from "../src/index.js";
import { rows, TinyModel } from "./tiny.js";

let dev: Device;
beforeAll(async () => {
  dev = await device("reference");
});

const values = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const prefix = /^base_model\.model\./;

/** A few steps away from 0. */
async function trained(model: TinyModel, adapter: Adapter): Promise<void> {
  const optimizer = optim.sgd(adapter.namedParameters(), { learningRate: 0.5 });
  for (let step = 0; step < 3; step++) {
    optimizer.update(grad(model.loss(rows(dev, 3, 8, 2), rows(dev, 3, 5, 3)), adapter.parameters()));
    for (const parameter of adapter.parameters()) await parameter.realize();
  }
}

test("every dense layer without a bias gets one that is 0 at first, beside the biases that are there", async () => {
  const model = new TinyModel(dev);
  const x = rows(dev, 3, 8, 2);
  const base = await values(model.forward(x));
  const weights = await Promise.all([...model.namedParameters().values()].map(values));
  const adapter = applyAdapter(model, { method: "bitfit", addMissing: true });
  const names = ["layers.0.q_proj", "layers.0.c_fc", "layers.1.q_proj", "layers.1.c_fc", "lm_head"].map((name) => `${name}.bias`);
  expect([...adapter.namedParameters().keys()].map((name) => name.replace(prefix, ""))).toEqual(names);
  expect(await values(model.forward(x))).toEqual(base);
  const before = await model.loss(x, rows(dev, 3, 5, 3)).item();
  await trained(model, adapter);
  expect(await model.loss(x, rows(dev, 3, 5, 3)).item()).toBeLessThan(before);
  for (const parameter of adapter.parameters()) expect((await values(parameter)).some((value) => value !== 0)).toBe(true);
  expect(await Promise.all([...model.namedParameters().values()].map(values))).toEqual(weights);
  adapter.disable();
  expect(await values(model.forward(x))).toEqual(base);
});

test("saved and loaded they compute the same, and merging is refused with the reason", async () => {
  const model = new TinyModel(dev);
  const x = rows(dev, 3, 8, 2);
  const adapter = applyAdapter(model, { method: "bitfit", addMissing: true, targets: ["q_proj", "c_fc"] });
  await trained(model, adapter);
  const output = await values(model.forward(x));
  expect(() => merge(adapter)).toThrow(/q_proj has no bias, and the checkpoint's configuration no place/);
  expect(() => merge(adapter)).toThrow(AdapterError);
  expect(await values(model.forward(x))).toEqual(output);
  const files = memoryFiles();
  await saveAdapter(adapter, "saved", { files });
  adapter.disable();
  const again = await loadAdapter(model, "saved", { files });
  expect(peftConfig(again)).toMatchObject({ peft_type: "BITFIT", add_missing: true, target_modules: ["c_fc", "q_proj"] });
  const loaded = await values(model.forward(x));
  expect(Math.max(...loaded.map((value, i) => Math.abs(value - (output[i] ?? Number.NaN))))).toBeLessThan(1e-6);
});

test("without the option a model without biases has no place for BitFit", () => {
  const model = new TinyModel(dev, 1, 0);
  expect(() => applyAdapter(model, { method: "bitfit" })).toThrow(NotApplicableError);
  expect(() => applyAdapter(model, { method: "bitfit" })).toThrow(/addMissing/);
  expect([...applyAdapter(model, { method: "bitfit", addMissing: true }).places.keys()]).toEqual(["lm_head"]);
});
