import { type Device, device, memoryFiles, realizeNow, type Tensor } from "@lowrank/tensor";
import { beforeAll, describe, expect, test } from "vitest";
import {
  type Adapter,
  AdapterError,
  adapterOutline,
  applyAdapter,
  combineAdapters,
  extractAdapter,
  loadAdapter,
  merge,
  resizeAdapter,
  saveAdapter,
} from "../src/index.js";
import { rows, TinyModel } from "./tiny.js";

let dev: Device;
beforeAll(async () => {
  dev = await device("reference");
});

const onWarning = (): void => undefined;
const values = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const expectClose = (found: readonly number[], expected: readonly number[], tolerance: number): void => {
  expect(found.length).toBe(expected.length);
  expect(Math.max(...found.map((value, i) => Math.abs(value - (expected[i] ?? Number.NaN))))).toBeLessThan(tolerance);
};

/** Adds random numbers to the weights of these names. */
function trained(model: TinyModel, names: RegExp): TinyModel {
  let seed = 20;
  for (const [name, parameter] of model.namedParameters()) {
    if (!names.test(name)) continue;
    const noise = rows(dev, 1, parameter.size, seed++).reshape(parameter.shape);
    parameter.assign(parameter.add(noise.mul(0.1)));
  }
  realizeNow(model.parameters());
  return model;
}

/** An adapter that does something, not in the forward. */
function adapted(model: TinyModel, seed = 5): Adapter {
  const adapter = applyAdapter(model, { method: "lora", rank: 3, alpha: 5, seed, targets: ["q_proj", "c_fc"] });
  for (const [name, parameter] of adapter.namedParameters()) if (name.includes("lora_B")) parameter.assign(rows(dev, 8, 3, seed).mul(0.3));
  realizeNow(adapter.parameters());
  adapter.disable();
  return adapter;
}

describe("extract", () => {
  test("at the full rank, merged, it is the tuned model to 1e-5, for both layouts of weights", async () => {
    const base = new TinyModel(dev);
    const tuned = trained(new TinyModel(dev), /\.weight$/);
    const { adapter, report } = await extractAdapter(base, tuned, { rank: 8, onWarning });
    expect(report.kept).toBeCloseTo(1, 10);
    expect(report.layers.map(({ name }) => name)).toContain("lm_head");
    expect(report.notKept).toEqual([]);
    expect(adapter.isEnabled).toBe(false);
    merge(adapter);
    const expected = tuned.namedParameters();
    for (const [name, parameter] of base.namedParameters())
      expectClose(await values(parameter), await values(expected.get(name) ?? expect.fail(name)), 1e-5);
  });

  test("what is kept is what the report says, layer by layer, and biases are named", async () => {
    const base = new TinyModel(dev);
    const tuned = trained(new TinyModel(dev), /layers\.1/);
    const { adapter, report } = await extractAdapter(base, tuned, { rank: 2, onWarning });
    expect(report.layers.map(({ name, rank }) => `${name} ${rank}`)).toEqual(["layers.1.q_proj 2", "layers.1.c_fc 2"]);
    expect(report.notKept).toEqual(["layers.1.c_fc.bias"]);
    for (const { name, kept } of report.layers) {
      const weight = (model: TinyModel): Tensor => model.namedParameters().get(`${name}.weight`) ?? expect.fail(name);
      const delta = await values(weight(tuned).sub(weight(base)));
      const [change] = adapter.attachments.get(name)?.merge?.() ?? [];
      const found = await values(change?.value.sub(change.weight) ?? expect.fail(name));
      const energy = (list: readonly number[]): number => list.reduce((sum, value) => sum + value * value, 0);
      expect(kept).toBeCloseTo(1 - energy(delta.map((value, i) => value - (found[i] ?? 0))) / energy(delta), 5);
      expect(kept).toBeLessThan(1);
    }
  });

  test("an energy finds the smallest ranks that keep it, and a merged LoRA is found again with its own", async () => {
    const base = new TinyModel(dev);
    const tuned = trained(new TinyModel(dev), /q_proj/);
    const { report } = await extractAdapter(base, tuned, { energy: 0.8, onWarning });
    for (const { name, rank, kept } of report.layers) {
      expect(kept).toBeGreaterThanOrEqual(0.8);
      const less = await extractAdapter(base, tuned, { rank: rank - 1, onWarning });
      expect(less.report.layers.find((layer) => layer.name === name)?.kept).toBeLessThan(0.8);
    }
    const merged = new TinyModel(dev);
    merge(adapted(merged));
    const again = await extractAdapter(new TinyModel(dev), merged, { energy: 1 - 1e-9, onWarning });
    expect(again.report.layers.map(({ rank }) => rank)).toEqual([3, 3, 3, 3]);
  });

  test("refused: other shapes, other parameters, nothing to extract, and no or two sizes", async () => {
    const base = new TinyModel(dev);
    await expect(extractAdapter(base, new TinyModel(dev, 1, 3), { rank: 2 })).rejects.toThrow(
      /layers\.2\.q_proj\.weight is only in the tuned/,
    );
    await expect(extractAdapter(base, new TinyModel(dev), { rank: 2 })).rejects.toThrow(/No dense layer differs/);
    await expect(extractAdapter(base, trained(new TinyModel(dev), /bias/), { rank: 2 })).rejects.toThrow(/only layers\.0\.c_fc\.bias/);
    await expect(extractAdapter(base, base, { rank: 0 })).rejects.toThrow(AdapterError);
    await expect(extractAdapter(base, base, { energy: 1.5 })).rejects.toThrow(/energy is 1\.5/);
    await expect(extractAdapter(base, base, {} as { rank: number })).rejects.toThrow(/Give one of the two/);
  });

  test("refused: a weight of another shape, by name", async () => {
    const tuned = new TinyModel(dev);
    tuned.lm_head.weight = rows(dev, 6, 8, 1);
    const attempt = extractAdapter(new TinyModel(dev), tuned, { rank: 2 });
    await expect(attempt).rejects.toThrow(/lm_head/);
  });
});

describe("resize", () => {
  const run = async (model: TinyModel, adapter: Adapter): Promise<number[]> => {
    adapter.enable();
    const result = await values(model.forward(rows(dev, 3, 8, 2)));
    adapter.disable();
    return result;
  };

  test.each([3, 5, 8, 11])("rank %i keeps everything", async (rank) => {
    const model = new TinyModel(dev);
    const adapter = adapted(model);
    const before = await run(model, adapter);
    const { adapter: resized, report } = await resizeAdapter(adapter, { rank, onWarning });
    expect(report.kept).toBeCloseTo(1, 10);
    expectClose(await run(model, resized), before, 1e-5);
    const a = resized.namedParameters().get("base_model.model.layers.0.q_proj.lora_A.weight");
    expect(a?.shape).toEqual([rank, 8]);
    // What is new can be trained: its A is not zero.
    const last = (await values(a ?? expect.fail("no A"))).slice(-8);
    expect(Math.max(...last.map(Math.abs))).toBeGreaterThan(1e-3);
  });

  test("a smaller rank is the best of its rank: as the extraction of the merged difference", async () => {
    const model = new TinyModel(dev);
    const adapter = adapted(model);
    const { adapter: resized, report } = await resizeAdapter(adapter, { rank: 1, onWarning });
    const merged = new TinyModel(dev);
    merge(adapted(merged));
    const base = new TinyModel(dev);
    const extracted = await extractAdapter(base, merged, { rank: 1, onWarning });
    expect(report.kept).toBeCloseTo(extracted.report.kept, 5);
    expect(report.kept).toBeLessThan(1);
    expectClose(await run(model, resized), await run(base, extracted.adapter), 1e-4);
  });

  test("an energy gives each layer its own rank, which files carry", async () => {
    const model = new TinyModel(dev);
    const adapter = adapted(model);
    const { adapter: resized, report } = await resizeAdapter(adapter, { energy: 0.75, onWarning });
    expect(report.layers.every(({ kept, rank }) => kept >= 0.75 && rank < 3)).toBe(true);
    const files = memoryFiles();
    await saveAdapter(resized, "small", { files });
    const other = new TinyModel(dev);
    const again = await loadAdapter(other, "small", { files, onWarning });
    expectClose(await run(other, again), await run(model, resized), 1e-5);
  });

  test("refused: other methods, and ranks out of range", async () => {
    const model = new TinyModel(dev);
    await expect(resizeAdapter(applyAdapter(model, { method: "dora", targets: ["q_proj"] }), { rank: 2 })).rejects.toThrow(/method "dora"/);
    await expect(resizeAdapter(adapted(model), { rank: 1.5 })).rejects.toThrow(/rank is 1\.5/);
  });
});

describe("from files alone", () => {
  test("combined on an outline, an adapter is the one that the model gives", async () => {
    const files = memoryFiles();
    const model = new TinyModel(dev);
    const both = [adapted(model), adapted(model, 6)];
    for (const [index, adapter] of both.entries()) await saveAdapter(adapter, `${index}`, { files });
    const outline = await adapterOutline(["0", "1"], { files, device: dev });
    expect([...outline.namedModules().keys()].sort()).toEqual(["layers.0.c_fc", "layers.0.q_proj", "layers.1.c_fc", "layers.1.q_proj"]);
    const loaded = [await loadAdapter(outline, "0", { files, onWarning }), await loadAdapter(outline, "1", { files, onWarning })];
    await saveAdapter(await combineAdapters(loaded, { method: "cat", weights: [0.5, 0.25], onWarning }), "out", { files });
    const direct = await combineAdapters(both, { method: "cat", weights: [0.5, 0.25], onWarning });
    const again = await loadAdapter(model, "out", { files, onWarning });
    for (const [name, parameter] of direct.namedParameters())
      expectClose(await values(again.namedParameters().get(name) ?? expect.fail(name)), await values(parameter), 1e-6);
  });

  test("refused: no adapter, another method", async () => {
    const files = memoryFiles({ "other/notes.txt": "" });
    for (const [place, says] of [
      ["nowhere", /^nowhere: there is no such folder\. Give the folder/],
      ["other", /^other holds no adapter_config\.json\. Give the folder/],
    ] as const) {
      await expect(adapterOutline([place], { files, device: dev })).rejects.toThrow(says);
      await expect(loadAdapter(new TinyModel(dev), place, { files })).rejects.toThrow(says);
    }
    await saveAdapter(applyAdapter(new TinyModel(dev), { method: "dora", targets: ["q_proj"] }), "d", { files });
    await expect(adapterOutline(["d"], { files, device: dev })).rejects.toThrow(/type DoRA/);
  });
});
