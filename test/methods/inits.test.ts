// First values out of weights and data, and the ways to train that are made for pairs: what they promise, and PEFT's own values.
// The cases themselves are in lora.test.ts.
import { grad } from "@lowrank/autograd";
import {
  type Adapter,
  AdapterError,
  type AdapterOptions,
  applyAdapter,
  type InitName,
  loadAdapter,
  merge,
  peftConfig,
  saveAdapter,
  unmerge,
} from "@lowrank/lora";
import { memoryFiles, type Tensor, tensor } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { expect, test } from "vitest";
import { type Case, everyMethodCase, integers, io, load, type Model, modelOf, relativeNorm } from "../golden.js";

const named = (name: string): Case => {
  const golden = everyMethodCase.find((one) => one.name === `methods/${name}`);
  if (!golden) throw new Error(`There is no case ${name}.`);
  return golden;
};

const ids = async (): Promise<Tensor> => tensor([[1, 5, 9, 2, 30, 7]], { dtype: "i32", device: await testDevice() });

/** Largest difference of two lists of numbers. */
async function difference(actual: Tensor, wanted: ArrayLike<number>): Promise<number> {
  const got = await actual.data();
  expect(got.length).toBe(wanted.length);
  return Array.from(got, (value, i) => Math.abs(value - (wanted[i] ?? Number.NaN))).reduce((a, b) => Math.max(a, b), 0);
}

const targetsOf = { llama: ["q_proj", "down_proj"], gpt2: ["c_attn", "c_fc", "c_proj"] } as const;
const models = { llama: named("llama-pissa"), gpt2: named("gpt2-pissa") } as const;
type Kind = keyof typeof models;

async function started(model: Model, kind: Kind, options: Partial<Extract<AdapterOptions, { method: "lora" }>>): Promise<Adapter> {
  const adapter = applyAdapter(model, { method: "lora", rank: 4, alpha: 6, targets: targetsOf[kind], ...options });
  const tokens = await ids();
  await adapter.initialize({ runs: [() => model.forward(tokens), () => model.forward(tokens.add(3).cast("i32"))] });
  return adapter;
}

/** Moves every trained number, so that the adapter does something. */
function moved(adapter: Adapter): void {
  for (const [i, parameter] of adapter.parameters().entries()) parameter.assign(parameter.add(0.02 * (i + 1)));
}

const inits: readonly InitName[] = ["kaiming", "gaussian", "orthogonal", "pissa", "pissa_niter_4", "olora", "eva"];
const rows = inits.flatMap((init) => (["llama", "gpt2"] as const).map((kind) => [init, kind] as const));

test.each(rows)('init "%s" on %s starts at the base, merges and unmerges, and leaves the base as it was', async (init, kind) => {
  const model = await modelOf(models[kind]);
  const tokens = await ids();
  const before = Float32Array.from(await model.forward(tokens).data());
  const weights = new Map<string, Float32Array>();
  for (const [name, weight] of model.namedParameters()) weights.set(name, Float32Array.from(await weight.data()));
  const adapter = await started(model, kind, { init, eva: { rho: 1, tau: 0.9, whiten: false, adjustScaling: true } });
  expect(await difference(model.forward(tokens), before)).toBeLessThan(1e-5);
  moved(adapter);
  const trained = Float32Array.from(await model.forward(tokens).data());
  expect(await difference(model.forward(tokens), before)).toBeGreaterThan(1e-3);
  for (const [name, weight] of model.namedParameters()) expect(await difference(weight, weights.get(name) ?? [])).toBe(0);
  adapter.disable();
  expect([...(await model.forward(tokens).data())]).toEqual([...before]);
  adapter.enable();
  merge(adapter);
  expect(await difference(model.forward(tokens), trained)).toBeLessThan(1e-4);
  unmerge(adapter);
  for (const [name, weight] of model.namedParameters()) expect(await difference(weight, weights.get(name) ?? [])).toBeLessThan(1e-6);
});

test.each([
  ["pissa", "lora", false],
  ["olora", "lora", true],
  ["pissa", "dora", false],
  ["gaussian", "lora", false],
] as const)(
  'init "%s" of %s is saved, as itself or as a plain pair, and loaded to the same function (rslora: %s)',
  async (init, method, rslora) => {
    const model = await modelOf(models.gpt2);
    const tokens = await ids();
    const adapter = applyAdapter(model, { method, rank: 3, alpha: 5, rslora, init, targets: ["c_attn", "c_fc"], rankPattern: { c_fc: 2 } });
    await adapter.initialize();
    moved(adapter);
    const trained = Float32Array.from(await model.forward(tokens).data());
    adapter.disable();
    for (const asPlainLora of [false, true]) {
      const files = memoryFiles();
      await saveAdapter(adapter, "saved", { files, asPlainLora });
      const again = await loadAdapter(model, "saved", { files });
      expect(await difference(model.forward(tokens), trained)).toBeLessThan(1e-5);
      expect(peftConfig(again).init_lora_weights).toBe(asPlainLora ? true : init);
      again.disable();
    }
  },
);

test.each(["pissa", "olora", "eva"] as const)('init "%s" says so when forward, merge or save come before initialize', async (init) => {
  const model = await modelOf(models.llama);
  const adapter = applyAdapter(model, { method: "lora", rank: 2, init, targets: ["q_proj"] });
  const tokens = await ids();
  expect(() => model.forward(tokens)).toThrow(/await adapter\.initialize\(/);
  expect(() => merge(adapter)).toThrow(AdapterError);
  const files = memoryFiles();
  await expect(saveAdapter(adapter, "saved", { files })).rejects.toThrow(AdapterError);
  expect(await files.list("saved")).toBeNull();
});

test("PiSSA and OLoRA start as PEFT's: the same products B A", async () => {
  for (const name of ["gpt2-pissa", "llama-pissa", "llama-olora"]) {
    const golden = named(name);
    const model = await modelOf(golden);
    const theirs = await load(model, golden, "adapter_init");
    theirs.disable();
    const ours = applyAdapter(model, { method: "lora", ...(theirs.options as object) });
    await ours.initialize();
    for (const [place, { pair }] of theirs.attachments) {
      const own = ours.attachments.get(place)?.pair;
      if (!pair || !own) expect.fail(place);
      expect(await relativeNorm(own.b.matmul(own.a), await pair.b.matmul(pair.a).data()), `${name} ${place}`).toBeLessThan(1e-4);
    }
    ours.disable();
  }
});

test.each([
  ["llama-eva", ["q_proj", "k_proj", "down_proj"], 6, 2],
  ["gpt2-eva-uniform", ["c_attn", "c_fc"], 8, 1],
] as const)("EVA on the data of %s finds PEFT's ranks and components", async (name, targets, alpha, rho) => {
  const golden = named(name);
  const model = await modelOf(golden);
  const theirs = await load(model, golden, "adapter_init");
  theirs.disable();
  const adapter = applyAdapter(model, {
    method: "lora",
    rank: 3,
    alpha,
    targets,
    init: "eva",
    eva: { rho, tau: 0.99, whiten: false, adjustScaling: true },
  });
  await io(golden, async (file) => {
    const all = await integers(file, "eva_batches");
    const [count = 0] = all.shape;
    const batches = Array.from({ length: count }, (_, i) => all.slice([i, i + 1]).reshape(all.shape.slice(1)));
    await adapter.initialize({ runs: batches.map((batch) => () => model.forward(batch)) });
  });
  const [config, wanted] = [peftConfig(adapter), peftConfig(theirs)];
  for (const field of ["rank_pattern", "alpha_pattern", "target_modules", "eva_config", "init_lora_weights", "r", "lora_alpha"])
    expect(config[field], field).toEqual(wanted[field]);
  for (const [key, value] of theirs.namedParameters()) {
    const own = adapter.namedParameters().get(key);
    if (!own) expect.fail(key);
    // f32 here and there, on inputs whose components are a few percent apart.
    expect(await difference(own, await value.data()), key).toBeLessThan(2e-3);
  }
});

test("EVA leaves a layer out whose components explain nothing, and counts only tokens in the mask", async () => {
  const model = await modelOf(models.llama);
  // Many different tokens: no layer has one component that explains nearly all.
  const many = Int32Array.from({ length: 40 }, (_, i) => (i * 17 + 3) % 50);
  const tokens = tensor(many, { dtype: "i32", device: await testDevice(), shape: [1, 40] });
  const options = { method: "lora", rank: 1, alpha: 2, init: "eva", targets: ["q_proj", "o_proj", "up_proj", "down_proj"] } as const;
  const adapter = applyAdapter(model, { ...options, eva: { rho: 4, tau: 0.5, whiten: true, adjustScaling: false } });
  await adapter.initialize({ runs: [{ run: () => model.forward(tokens), mask: Array.from(many, (_, i) => Number(i !== 7)) }] });
  const ranks = [...adapter.attachments.values()].map(({ pair }) => pair?.a.shape[0] ?? 0);
  expect(ranks.reduce((sum, rank) => sum + rank, 0)).toBe(8);
  expect(ranks.length).toBeLessThan(8);
  const files = memoryFiles();
  await saveAdapter(adapter, "saved", { files });
  adapter.disable();
  const again = await loadAdapter(model, "saved", { files });
  expect([...again.namedParameters().keys()]).toEqual([...adapter.namedParameters().keys()]);
  again.disable();
  const wrong = applyAdapter(model, { ...options });
  await expect(wrong.initialize({ runs: [{ run: () => model.forward(tokens), mask: [1] }] })).rejects.toThrow(/mask has 1 numbers for 40/);
  await expect(wrong.initialize()).rejects.toThrow(/takes first values from data/);
});

test("LoRA+ speeds up B and DoRA's magnitudes, not A", async () => {
  const model = await modelOf(models.llama);
  const adapter = applyAdapter(model, { method: "dora", rank: 2, loraPlusRatio: 16, targets: ["q_proj"] });
  const factors = adapter.training.learningRateFactors ?? new Map<string, number>();
  for (const name of adapter.namedParameters().keys()) expect(factors.get(name) ?? 1, name).toBe(name.includes("lora_A") ? 1 : 16);
  expect(adapter.training.weightDecays?.size).toBe(0);
});

test("LoRA-FA trains B alone, and asks for initialize before the first step", async () => {
  const model = await modelOf(models.gpt2);
  const adapter = applyAdapter(model, { method: "lora", rank: 2, freezeA: true, targets: ["c_attn"] });
  expect([...adapter.namedParameters().keys()].every((name) => name.endsWith("lora_B.weight"))).toBe(true);
  const tokens = await ids();
  const grads = grad(model.loss(tokens, tokens), adapter.parameters());
  const byName = new Map([...adapter.namedParameters().keys()].map((name, i) => [name, grads[i] as Tensor])); // one a parameter
  expect(() => adapter.training.changeGradients?.(byName)).toThrow(/await adapter\.initialize\(\)/);
  await adapter.initialize();
  expect(adapter.training.changeGradients?.(byName).size).toBe(byName.size);
});

test.each([
  [{ init: "xavier" as InitName }, /Choose among kaiming/],
  [{ init: "orthogonal", rank: 3 }, /even rank/],
  [{ freezeA: true, loraPlusRatio: 4 }, /Choose one of them/],
  [{ loraPlusRatio: 0 }, /above 0/],
  [{ loraPlusEmbeddingRatio: 0.1 }, /without loraPlusRatio/],
  [{ eva: { rho: 0, tau: 0.9, whiten: false, adjustScaling: true } }, /at least 1/],
] as const)("options %o are refused", async (options, message) => {
  const model = await modelOf(models.llama);
  expect(() => applyAdapter(model, { method: "lora", targets: ["q_proj"], ...options })).toThrow(message);
});

test("PiSSA with a rank above the weight's, or a scaling of 0, is refused by initialize", async () => {
  const model = await modelOf(models.llama);
  for (const [options, message] of [
    [{ rank: 9 }, /8 at most/],
    [{ rank: 2, alpha: 0 }, /alpha above 0/],
  ] as const) {
    const adapter = applyAdapter(model, { method: "lora", init: "pissa", targets: ["k_proj"], onWarning: () => {}, ...options });
    await expect(adapter.initialize()).rejects.toThrow(message);
    adapter.disable();
  }
});
