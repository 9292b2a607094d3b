// Adapters that took something out of the base, where several of them meet and where files are read without a base.
import { nn } from "@lowrank/autograd";
import { type Device, device, Generator, memoryFiles, type Tensor, tensor } from "@lowrank/tensor";
import { beforeAll, describe, expect, test } from "vitest";
import {
  type Adapter,
  AdapterError,
  type AdapterOptions,
  adapterBatch,
  adapterOutline,
  applyAdapter,
  combineAdapters,
  type InitName,
  loadAdapter,
  peftConfig,
  resizeAdapter,
  saveAdapter,
  withoutAdapter,
} from "../src/index.js";
import { rows, TinyModel } from "./tiny.js";

let dev: Device;
beforeAll(async () => {
  dev = await device("reference");
});

const onWarning = (): void => undefined;
const numbers = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const distance = async (a: Tensor, b: readonly number[]): Promise<number> =>
  Math.max(...(await numbers(a)).map((value, i) => Math.abs(value - (b[i] ?? Number.NaN))));

/** An adapter with its first values, moved a little, and out of the forward; what the model computes with it. */
async function trained(
  model: TinyModel,
  options: Partial<Extract<AdapterOptions, { method: "lora" }>>,
  seed: number,
): Promise<{ readonly adapter: Adapter; readonly output: number[] }> {
  const adapter = applyAdapter(model, { method: "lora", rank: 2, alpha: 3, targets: ["q_proj", "c_fc"], onWarning, ...options });
  await adapter.initialize();
  let next = seed;
  for (const parameter of adapter.parameters())
    parameter.assign(parameter.add(new Generator(dev, next++).normal([...parameter.shape], 0, 0.3)));
  const output = await numbers(model.forward(rows(dev, 3, 8, 9)));
  adapter.disable();
  return { adapter, output };
}

describe.each(["pissa", "olora", "pissa_niter_3"] as const)("an adapter that began as %s", (init: InitName) => {
  test("combined alone, and resized to twice its rank, does what it did", async () => {
    const model = new TinyModel(dev);
    const { adapter, output } = await trained(model, { init }, 20);
    const combined = await combineAdapters([adapter], { onWarning });
    const { adapter: resized, report } = await resizeAdapter(adapter, { rank: 4, onWarning });
    expect(report.kept).toBeCloseTo(1, 9);
    for (const other of [combined, resized]) {
      other.enable();
      expect(await distance(model.forward(rows(dev, 3, 8, 9)), output)).toBeLessThan(1e-5);
      expect(peftConfig(other).init_lora_weights).toBe(true);
      other.disable();
    }
  });

  test("is added to a plain one of its whole rank as their changes are", async () => {
    const model = new TinyModel(dev);
    const first = await trained(model, { init, targets: ["c_fc"] }, 20);
    const second = await trained(model, { rank: 3, targets: ["c_fc"] }, 40);
    const weightOf = (adapter: Adapter): Tensor => adapter.attachments.get("layers.0.c_fc")?.pair?.delta() ?? expect.fail("no pair");
    const sum = await numbers(weightOf(first.adapter).mul(0.5).add(weightOf(second.adapter).mul(2)));
    const combined = await combineAdapters([first.adapter, second.adapter], { weights: [0.5, 2], method: "cat", onWarning });
    expect(await distance(weightOf(combined), sum)).toBeLessThan(1e-5);
  });

  test("shares a batch with a plain one and the base", async () => {
    const model = new TinyModel(dev);
    const first = await trained(model, { init }, 20);
    const second = await trained(model, { targets: ["q_proj"] }, 40);
    const batch = adapterBatch(model, [first.adapter, second.adapter], [1, null, 0]);
    const base = await numbers(withoutAdapter(model, () => model.forward(rows(dev, 3, 8, 9))));
    const wanted = [...second.output.slice(0, 5), ...base.slice(5, 10), ...first.output.slice(10)];
    expect(await distance(model.forward(rows(dev, 3, 8, 9)), wanted)).toBeLessThan(1e-5);
    batch.disable();
  });

  test("is not read without its base, unless it was saved as a plain pair", async () => {
    const model = new TinyModel(dev);
    const { adapter, output } = await trained(model, { init }, 20);
    const files = memoryFiles();
    await saveAdapter(adapter, "own", { files, asPlainLora: false });
    await expect(adapterOutline(["own"], { files, device: dev })).rejects.toThrow(/took something out of the base's weights/);
    await saveAdapter(adapter, "plain", { files, asPlainLora: true });
    const outline = await adapterOutline(["plain"], { files, device: dev });
    expect((await loadAdapter(outline, "plain", { files, onWarning })).parameters()).toHaveLength(8);
    for (const place of ["own", "plain"]) {
      const again = await loadAdapter(model, place, { files, onWarning });
      expect(await distance(model.forward(rows(dev, 3, 8, 9)), output), place).toBeLessThan(1e-5);
      again.disable();
    }
  });
});

test.each([
  ["pissa", ["q_proj", "c_fc"], false],
  ["olora", ["q_proj"], false],
  ["olora", ["q_proj", "c_fc"], true],
  ["pissa_niter_2", ["q_proj"], true],
  ["orthogonal", ["c_fc"], false],
] as const)('what PEFT would read as another function is saved plain: "%s" on %s', async (init, targets, isPlain) => {
  const { adapter } = await trained(new TinyModel(dev), { init, targets }, 20);
  const files = memoryFiles();
  await saveAdapter(adapter, "saved", { files });
  const again = await loadAdapter(new TinyModel(dev), "saved", { files, onWarning });
  expect(peftConfig(again).init_lora_weights).toBe(isPlain ? true : init);
});

test("before their first values are there, adapters are neither combined nor put into a batch", async () => {
  const model = new TinyModel(dev);
  const adapter = applyAdapter(model, { method: "lora", init: "pissa", rank: 2, targets: ["q_proj"] });
  await expect(combineAdapters([adapter])).rejects.toThrow(/await adapter\.initialize\(/);
  expect(() => adapterBatch(model, [adapter], [0])).toThrow(/await adapter\.initialize\(/);
  await adapter.initialize();
  const start = await numbers(adapter.parameters()[0] ?? expect.fail("no parameter"));
  await adapter.initialize();
  expect(await numbers(adapter.parameters()[0] ?? expect.fail("no parameter"))).toEqual(start);
});

test("first values out of the weights, and adapters that are combined, tell each layer once it is done", async () => {
  const model = new TinyModel(dev);
  const told: string[] = [];
  const onLayer = (name: string, done: number, count: number): void => void told.push(`${name} ${done}/${count}`);
  const adapter = applyAdapter(model, { method: "lora", init: "pissa", rank: 2, targets: ["q_proj"] });
  await adapter.initialize({ onLayer });
  expect(told).toEqual(["layers.0.q_proj 1/2", "layers.1.q_proj 2/2"]);
  await combineAdapters([adapter, adapter], { rank: 2, onLayer, onWarning });
  expect(told.slice(2)).toEqual(told.slice(0, 2));
});

test("the same seed gives the same first values, true and false are PEFT's names of two of them", async () => {
  const valuesOf = async (init: InitName): Promise<number[][]> => {
    const adapter = applyAdapter(new TinyModel(dev), { method: "lora", init, rank: 2, targets: ["q_proj"], seed: 7 });
    await adapter.initialize();
    return Promise.all(adapter.parameters().map(numbers));
  };
  for (const init of ["kaiming", "orthogonal", "pissa", "olora"] as const) expect(await valuesOf(init)).toEqual(await valuesOf(init));
  expect(await valuesOf(true)).toEqual(await valuesOf("kaiming"));
  expect(await valuesOf(false)).toEqual(await valuesOf("default"));
  const [, b = []] = await valuesOf(false);
  expect(b.every((value) => value !== 0 && Math.abs(value) <= Math.SQRT1_2)).toBe(true);
});

describe("with an embedding among the targets", () => {
  /** An embedding before a layer. */
  class Embedded extends nn.Module {
    readonly embed = new nn.Embedding(new Generator(dev, 3).normal([6, 8]));
    readonly proj = nn.Linear.init(8, 5, { generator: new Generator(dev, 4), bias: false });

    forward(ids: Tensor): Tensor {
      return this.proj.forward(this.embed.forward(ids));
    }
  }
  const ids = (): Tensor => rows(dev, 1, 4, 2).mul(0).add(3).cast("i32");

  test("a plain pair is as wide there, and does the same", async () => {
    for (const method of ["lora", "dora"] as const) {
      const model = new Embedded();
      const adapter = applyAdapter(model, {
        method,
        init: "pissa",
        rank: 2,
        alpha: 3,
        targets: ["embed", "proj"],
        rankPattern: { embed: 3 },
      });
      await adapter.initialize();
      for (const parameter of adapter.parameters()) parameter.assign(parameter.add(0.1));
      const output = await numbers(model.forward(ids()));
      adapter.disable();
      const files = memoryFiles();
      await saveAdapter(adapter, "plain", { files, asPlainLora: true });
      const again = await loadAdapter(model, "plain", { files, onWarning });
      expect(again.namedParameters().get("base_model.model.embed.lora_embedding_A")?.shape).toEqual([6, 6]);
      expect(await distance(model.forward(ids()), output), method).toBeLessThan(1e-5);
      again.disable();
    }
  });

  test("freezeA is refused", () => {
    expect(() => applyAdapter(new Embedded(), { method: "lora", rank: 2, freezeA: true, targets: ["embed", "proj"] })).toThrow(/freezeA/);
  });

  test("EVA leaves the embedding's rank as it was asked for", async () => {
    const model = new Embedded();
    const adapter = applyAdapter(model, {
      method: "lora",
      init: "eva",
      rank: 1,
      alpha: 2,
      targets: ["embed", "proj"],
      rankPattern: { embed: 3 },
    });
    const tokens = new Generator(dev, 8).uniform([20]).mul(6).cast("i32");
    await adapter.initialize({ runs: [() => model.forward(tokens)] });
    const files = memoryFiles();
    await saveAdapter(adapter, "saved", { files });
    expect(peftConfig(adapter)).toMatchObject({ rank_pattern: { embed: 3 }, target_modules: ["embed", "proj"] });
    adapter.disable();
    const again = await loadAdapter(model, "saved", { files });
    expect([...again.namedParameters()].map(([name, { shape }]) => `${name} ${shape}`)).toEqual(
      [...adapter.namedParameters()].map(([name, { shape }]) => `${name} ${shape}`),
    );
  });
});

test.each([
  [{ init: "pissa", targetParameters: ["q_proj.weight"], targets: [] }, /for layers, not for targetParameters/],
  [{ init: "orthogonal", loraBias: true, targets: ["q_proj"] }, /loraBias goes with init/],
  [{ init: "eva", targets: ["q_proj"], eva: { rank: 3 } as object }, /eva holds rank/],
] as const)("options %o are refused", (options, message) => {
  expect(() => applyAdapter(new TinyModel(dev), { method: "lora", rank: 2, ...options })).toThrow(message);
  expect(() => applyAdapter(new TinyModel(dev), { method: "lora", rank: 2, ...options })).toThrow(AdapterError);
});

test("EVA says so when no run has enough tokens", async () => {
  const model = new TinyModel(dev);
  const adapter = applyAdapter(model, { method: "lora", init: "eva", rank: 3, targets: ["q_proj"] });
  const runs = [{ run: () => model.forward(rows(dev, 8, 8, 2)), mask: [1, 1, 1, 1, 1, 0, 0, 0] }];
  await expect(adapter.initialize({ runs })).rejects.toThrow(/6 on layers\.0\.q_proj/);
  expect(() => model.forward(rows(dev, 3, 8, 9))).toThrow(/await adapter\.initialize\(/);
});

test("EVA does not leave out a layer whose bias rides with its pair", async () => {
  /** A layer that is given two directions, and one that is given eight. */
  class Parallel extends nn.Module {
    readonly few = nn.Linear.init(8, 5, { generator: new Generator(dev, 3) });
    readonly many = nn.Linear.init(8, 5, { generator: new Generator(dev, 4) });

    forward(x: Tensor): Tensor {
      return this.few.forward(x.mul(tensor([1, 1, 0, 0, 0, 0, 0, 0], { device: dev }))).add(this.many.forward(x));
    }
  }
  const model = new Parallel();
  const options = { method: "lora", init: "eva", rank: 1, targets: ["few", "many"], eva: { tau: 0 } } as const;
  const runs = [() => model.forward(rows(dev, 40, 8, 2))];
  const plain = applyAdapter(model, options);
  await plain.initialize({ runs });
  expect([...plain.attachments.keys()]).toEqual(["few"]);
  expect(peftConfig(plain)).toMatchObject({ rank_pattern: { few: 2 }, alpha_pattern: { few: 16 }, target_modules: ["few"] });
  plain.disable();
  const biased = applyAdapter(model, { ...options, bias: "targeted" });
  await expect(biased.initialize({ runs })).rejects.toThrow(/leaves many without a pair/);
});
