// What a model or an adapter owns goes with it, once, and nothing else does.
import { AdapterError, applyAdapter, type MethodName, merge, methods, saveAdapter, unmerge } from "@lowrank/lora";
import { generate, initModel, TextGenerator } from "@lowrank/models";
import { DeviceError, device, eventLoopTurn, memoryFiles, tensor } from "@lowrank/tensor";
import { afterAll, describe, expect, test } from "vitest";
import { collectGarbage } from "../packages/tensor/src/graph/collector.js";

const gpt2 = { model_type: "gpt2", vocab_size: 61, n_embd: 16, n_layer: 1, n_head: 2, n_positions: 32 };
const llama = {
  model_type: "llama",
  vocab_size: 61,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 32,
};

const dev = await device("cpu", { threads: 1 });
afterAll(() => dev.dispose());
const ids = tensor([[1, 2, 3, 4]], { dtype: "i32", device: dev });
type Model = Awaited<ReturnType<typeof initModel>>;
const logits = async (model: Model): Promise<number[]> => Array.from(await model.forward(ids).data());

/** Bytes of tensors that something still refers to; the collector may need more than one look to come down to `expected`, or to rest. */
async function heldBytes(expected: number | null = null): Promise<number> {
  let sameLooks = 0;
  for (let look = 0; look < 20 && sameLooks < 4; look++) {
    const before = dev.memory.heldBytes;
    await eventLoopTurn();
    expect(collectGarbage()).toBe(true);
    await eventLoopTurn();
    sameLooks = expected === null && dev.memory.heldBytes === before ? sameLooks + 1 : 0;
    if (dev.memory.heldBytes === expected) break;
  }
  return dev.memory.heldBytes;
}

describe.each([gpt2, llama])("a $model_type model", (config) => {
  test("gives all its memory back, also when it is disposed twice or by `using`", async () => {
    const before = await heldBytes();
    const models: Model[] = [];
    for (let i = 0; i < 2; i++) {
      using model = await initModel({ ...config, tie_word_embeddings: i === 0 }, { device: dev });
      models.push(model);
      await logits(model);
      // Assigned, and not computed yet.
      if (i === 0) model.head.weight.assign(model.head.weight.mul(2));
      expect(dev.memory.heldBytes).toBeGreaterThan(before);
      if (i === 1) model.dispose();
      expect(model.isDisposed).toBe(i === 1);
    }
    expect(await heldBytes(before)).toBe(before);
    expect(models.every(({ isDisposed }) => isDisposed)).toBe(true);
    expect(await tensor([1], { device: dev }).add(1).item()).toBe(2);
  });

  test("says so when it is used afterwards", async () => {
    const model = await initModel(config, { device: dev });
    const generator = new TextGenerator(model);
    await generator.generate([[1, 2]], { maxNewTokens: 2 });
    const { head } = model;
    const weight = head.weight.mul(1);
    model.dispose();
    const used = /Decoder was used after dispose\(\).*load it again/;
    expect(() => model.forward(ids)).toThrow(DeviceError);
    for (const use of [() => model.forward(ids), () => model.hidden(ids), () => model.loss(ids, ids)]) expect(use).toThrow(used);
    expect(() => head.forward(weight)).toThrow(/Linear was used after dispose/);
    await expect(generate(model, [1, 2], { maxNewTokens: 2 })).rejects.toThrow(used);
    await expect(generator.generate([[1, 2]], { maxNewTokens: 2 })).rejects.toThrow(DeviceError);
    await expect(weight.data()).rejects.toThrow(/A tensor was used after dispose/);
    generator.dispose();
  });
});

/** What methods cannot do without. */
const needed: Partial<Record<MethodName, object>> = { adalora: { totalSteps: 10 }, miss: { rank: 4 } };
const extra: readonly (readonly [name: string, options: { readonly method: MethodName } & Readonly<Record<string, unknown>>])[] = [
  ["lora from pissa", { method: "lora", init: "pissa" }],
  ["lora with A frozen", { method: "lora", freezeA: true }],
  ["lora with biases, modules and tokens", { method: "lora", bias: "all", modulesToSave: ["ln_f"], trainableTokens: [1, 2] }],
  ["lora on parts of a layer", { method: "lora", targets: ["c_attn.q", "c_attn.v"] }],
  ["vera whose projections are not saved", { method: "vera", saveProjection: false }],
  ["ptuning with an lstm", { method: "ptuning", encoder: "lstm" }],
];
const rows = [
  ...(Object.keys(methods) as MethodName[]).map((method) => [method, { method, ...needed[method] }] as const), // its keys are the names
  ...extra,
];

const model = await initModel(gpt2, { device: dev });
const base = await logits(model);
const before = await heldBytes();

describe.each(rows)("an adapter of %s", (_name, options) => {
  const attached = async (): Promise<ReturnType<typeof applyAdapter>> => {
    const adapter = applyAdapter(model, { ...options, onWarning: () => {} } as Parameters<typeof applyAdapter>[1]);
    await adapter.initialize();
    return adapter;
  };

  test("gives all its memory back and leaves the base as it was", async () => {
    const adapter = await attached();
    adapter.training.state?.();
    for (const parameter of adapter.parameters()) parameter.assign(parameter.add(0.5));
    model.forward(ids);
    adapter.dispose();
    adapter[Symbol.dispose]();
    expect(await heldBytes(before)).toBe(before);
    expect([adapter.isDisposed, adapter.isEnabled, adapter.isMerged]).toEqual([true, false, false]);
    expect(await logits(model)).toEqual(base);
  });

  test("says so when it is used afterwards", async () => {
    const adapter = await attached();
    adapter.dispose();
    const uses = [
      () => adapter.enable(),
      () => adapter.parameters(),
      () => adapter.namedTensors(),
      () => adapter.training,
      () => merge(adapter),
      () => unmerge(adapter),
    ];
    for (const use of uses) expect(use).toThrow(AdapterError);
    await expect(adapter.initialize()).rejects.toThrow(/The adapter was used after dispose\(\).*load it again/);
    await expect(saveAdapter(adapter, "a", { files: memoryFiles() })).rejects.toThrow(AdapterError);
    adapter.disable();
    expect(await logits(model)).toEqual(base);
  });
});

test("a merged adapter that is disposed leaves the merged weights, and gives back what unmerging would need", async () => {
  for (const method of ["lora", "dora"] as const) {
    const other = await initModel(gpt2, { device: dev });
    const adapter = applyAdapter(other, { method, targets: ["c_fc"], rank: 4 });
    for (const parameter of adapter.parameters()) parameter.assign(parameter.add(0.1));
    const unmerged = await logits(other);
    merge(adapter);
    adapter.dispose();
    const after = await logits(other);
    for (const [i, value] of after.entries()) expect(value).toBeCloseTo(unmerged[i] ?? Number.NaN, 4); // the product in another order
    const weights = [...other.namedParameters().values()].reduce((sum, { size }) => sum + 4 * size, 0);
    expect(await heldBytes(before + weights)).toBe(before + weights);
    expect(() => unmerge(adapter)).toThrow(AdapterError);
    other.dispose();
  }
});
