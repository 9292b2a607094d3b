// Slow: each method is trained on two models, and generates without a cache for comparison.
// What must hold of virtual tokens (prefix tuning, prompt tuning, p-tuning and its second version) and bottleneck adapters, whatever the numbers.
import { grad, optim } from "@lowrank/autograd";
import { type Adapter, type AdapterOptions, applyAdapter, loadAdapter, merge, saveAdapter } from "@lowrank/lora";
import { type CausalLM, generate, initModel } from "@lowrank/models";
import { compile, type Device, memoryFiles, type Tensor, tensor } from "@lowrank/tensor";
import { inShare, testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";
import { ofText, textOf } from "./prompt.js";

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

const bases = {
  llama: {
    model_type: "llama",
    vocab_size: 40,
    hidden_size: 16,
    intermediate_size: 24,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 48,
    initializer_range: 0.5,
  },
  gpt2: { model_type: "gpt2", vocab_size: 40, n_embd: 16, n_layer: 2, n_head: 2, n_positions: 48, initializer_range: 0.5 },
} as const;

/** Each method, and whether its output is at first the base's. */
const rows: readonly [name: string, options: AdapterOptions, isIdentity: boolean][] = [
  ["prefix", { method: "prefix", virtualTokens: 3 }, false],
  ["a projected prefix", { method: "prefix", virtualTokens: 3, projection: true, encoderSize: 6 }, false],
  ["p-tuning v2", { method: "ptuning-v2", virtualTokens: 3 }, false],
  ["prompt", { method: "prompt", virtualTokens: 4 }, false],
  ["p-tuning, mlp", { method: "ptuning", virtualTokens: 3 }, false],
  ["p-tuning, lstm", { method: "ptuning", virtualTokens: 3, encoder: "lstm", encoderSize: 5 }, false],
  ["houlsby", { method: "houlsby", reductionFactor: 4 }, true],
  ["pfeiffer", { method: "pfeiffer", reductionFactor: 4 }, true],
  ["parallel", { method: "parallel" }, true],
];
const combinations = rows.flatMap(([name, options, isIdentity]) =>
  Object.entries(bases).map(([family, config]) => ({ name: `${name} on ${family}`, options, isIdentity, config })),
);

const text = (): Tensor =>
  tensor(
    Int32Array.from({ length: 16 }, (_, i) => (i * 17 + 5) % 40),
    { dtype: "i32", shape: [2, 8], device: dev },
  );
const copy = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const copies = (tensors: Iterable<Tensor>): Promise<number[][]> => Promise.all([...tensors].map(copy));

/** Greedy continuation, the whole text again for each token; padded to one length, so that one plan serves. */
async function withoutCache(model: CausalLM, prompt: readonly number[], count: number): Promise<number[]> {
  const length = prompt.length + count;
  const ids = [...prompt];
  const padded = new Int32Array(length);
  while (ids.length < length) {
    padded.set(ids);
    const logits = model.forward(tensor(padded, { device: dev, dtype: "i32", shape: [1, length] }));
    const at = logits.sizeAt(1) - length + ids.length - 1;
    const values = [...(await logits.narrow(1, at, 1).data())];
    ids.push(values.indexOf(Math.max(...values)));
  }
  return ids.slice(prompt.length);
}

async function trained(model: CausalLM, adapter: Adapter, steps: number): Promise<number> {
  const parameters = adapter.parameters();
  const optimizer = optim.adamw(parameters, { learningRate: 1e-2, weightDecay: 0 });
  const step = compile((ids: Tensor) => {
    const loss = model.loss(ids, ids);
    optimizer.update(grad(loss, parameters));
    return loss;
  });
  let last = Number.NaN;
  for (let i = 0; i < steps; i++) last = await step(text()).item();
  step.dispose();
  return last;
}

describe.each(inShare(combinations, ({ name }) => name))("$name", ({ options, isIdentity, config }) => {
  test("starts at the base exactly or visibly beside it, and disabled is the base, bit for bit", async () => {
    const model = await initModel(config, { device: dev, seed: 1 });
    const base = await copy(model.forward(text()));
    const adapter = applyAdapter(model, options);
    const adapted = await copy(ofText(model, text()));
    if (isIdentity) expect(adapted).toEqual(base);
    else expect(Math.max(...adapted.map((value, i) => Math.abs(value - (base[i] ?? Number.NaN))))).toBeGreaterThan(1e-3);
    adapter.disable();
    expect(await copy(model.forward(text()))).toEqual(base);
    adapter.enable();
    expect(await copy(ofText(model, text()))).toEqual(adapted);
  });

  test("training changes its own parameters only, lowers the loss, and generation with a cache is generation without", async () => {
    const model = await initModel(config, { device: dev, seed: 2 });
    const weights = await copies(model.namedParameters().values());
    const adapter = applyAdapter(model, options);
    const first = await trained(model, adapter, 1);
    expect(await trained(model, adapter, 12)).toBeLessThan(first);
    expect(await copies(model.namedParameters().values())).toEqual(weights);
    expect(await generate(model, [1, 2, 3], { maxNewTokens: 10, stopTokens: [] })).toEqual(await withoutCache(model, [1, 2, 3], 10));
  });

  test("what is saved gives the same logits when it is loaded, and nothing of it merges", async () => {
    const model = await initModel(config, { device: dev, seed: 3 });
    const adapter = applyAdapter(model, options);
    await trained(model, adapter, 2);
    const before = await copy(ofText(model, text()));
    expect(() => merge(adapter)).toThrow(/cannot be merged: .*Keep the adapter beside the model/);
    const files = memoryFiles();
    await saveAdapter(adapter, "saved", { files });
    adapter.disable();
    const again = await loadAdapter(model, "saved", { files });
    const after = await copy(ofText(model, text()));
    expect(Math.max(...after.map((value, i) => Math.abs(value - (before[i] ?? Number.NaN))))).toBeLessThan(1e-5); // other sums' order
    const second = memoryFiles();
    await saveAdapter(again, "saved", { files: second });
    expect(await textOf(second, "saved/adapter_config.json")).toBe(await textOf(files, "saved/adapter_config.json"));
  });
});

describe("a prompt's first values", () => {
  const firstRows = async (options: Partial<AdapterOptions>): Promise<{ rows: number[][]; table: number[][] }> => {
    const model = await initModel(bases.llama, { device: dev, seed: 4 });
    const adapter = applyAdapter(model, { method: "prompt", virtualTokens: 5, ...options } as AdapterOptions);
    const split = (flat: number[]): number[][] => Array.from({ length: flat.length / 16 }, (_, i) => flat.slice(16 * i, 16 * (i + 1)));
    const table = model.namedParameters().get("model.embed_tokens.weight") ?? expect.fail("no embedding");
    const [values] = adapter.parameters();
    return { rows: split(await copy(values as Tensor)), table: split(await copy(table)) };
  };

  test.each([
    ["a short text is repeated", [7, 9], [7, 9, 7, 9, 7]],
    ["a long text is cut", [1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5]],
  ])("%s", async (_, initTokens, expected) => {
    const { rows: found, table } = await firstRows({ initTokens });
    expect(found).toEqual(expected.map((id) => table[id]));
  });

  test("from the vocabulary they are rows of its table, and not all the same", async () => {
    const { rows: found, table } = await firstRows({ init: "vocabulary" });
    const known = new Set(table.map((row) => row.join()));
    for (const row of found) expect(known.has(row.join())).toBe(true);
    expect(new Set(found.map((row) => row.join())).size).toBeGreaterThan(1);
  });

  test.each([
    ["no ids", { init: "text" }, /no initTokens/],
    ["an id of another vocabulary", { initTokens: [40] }, /holds 40, which is no token of the model's vocabulary of 40/],
    ["more virtual tokens than the context has", { virtualTokens: 48 }, /the model sees 48 positions/],
    ["no virtual token", { virtualTokens: 0 }, /virtualTokens is 0/],
  ])("%s is an error", async (_, options, says) => {
    await expect(firstRows(options as Partial<AdapterOptions>)).rejects.toThrow(says);
  });
});

test("two adapters cannot have the one place before the text", async () => {
  const model = await initModel(bases.gpt2, { device: dev, seed: 5 });
  const first = applyAdapter(model, { method: "prompt", virtualTokens: 2 });
  expect(() => applyAdapter(model, { method: "ptuning", virtualTokens: 2 })).toThrow(/prompt of another adapter/);
  first.disable();
  applyAdapter(model, { method: "ptuning", virtualTokens: 3 });
  expect(model.virtualTokens.length).toBe(3);
});

test("the bert start of a bottleneck is near the base, and not it", async () => {
  const model = await initModel(bases.llama, { device: dev, seed: 6 });
  const base = await copy(model.forward(text()));
  applyAdapter(model, { method: "houlsby", reductionFactor: 4, init: "bert" });
  const adapted = await copy(model.forward(text()));
  const largest = Math.max(...adapted.map((value, i) => Math.abs(value - (base[i] ?? Number.NaN))));
  expect(largest).toBeGreaterThan(0);
  expect(largest).toBeLessThan(0.05 * Math.max(...base.map(Math.abs)));
});
