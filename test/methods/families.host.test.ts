// What adapters need of a block is said by the decoder for every family: where norms stand behind, around or beside, and where layers differ.
import { grad } from "@lowrank/autograd";
import { type AdapterOptions, applyAdapter } from "@lowrank/lora";
import { type CausalLM, initModel } from "@lowrank/models";
import { type Device, device, Generator, realize, type Tensor, tensor } from "@lowrank/tensor";
import { beforeAll, describe, expect, test } from "vitest";

let dev: Device;
beforeAll(async () => {
  dev = await device("reference");
});

const sizes = {
  vocab_size: 13,
  hidden_size: 16,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 8,
  max_position_embeddings: 32,
  initializer_range: 0.4,
};
const families: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  llama: {},
  olmo2: {},
  cohere: {},
  gemma2: { sliding_window: 4 },
  gpt_neox: {},
  phi3: {},
  lfm2: { full_attn_idxs: [1] },
};

const idsOf = (): Tensor => tensor([[1, 5, 9, 2, 7]], { device: dev, dtype: "i32" });
const values = async (t: Tensor): Promise<number[]> => [...(await t.data())];
const modelOf = (type: string): Promise<CausalLM> => initModel({ ...sizes, ...families[type], model_type: type }, { device: dev, seed: 2 });

describe.each(Object.keys(families))("%s", (type) => {
  test.each(["houlsby", "pfeiffer", "parallel"] as const)("%s changes nothing at first, and learns in every layer", async (method) => {
    const model = await modelOf(type);
    const before = await values(model.forward(idsOf()));
    const adapter = applyAdapter(model, { method, reductionFactor: 4 } as AdapterOptions);
    expect(await values(model.forward(idsOf()))).toEqual(before);
    const generator = new Generator(dev, 3);
    for (const t of adapter.parameters()) t.assign(generator.normal(t.shape).mul(0.2));
    const gradients = grad(model.loss(idsOf(), idsOf()), adapter.parameters());
    await realize(...gradients);
    const names = [...adapter.namedParameters().keys()];
    for (const [i, gradient] of gradients.entries()) {
      const size = Math.hypot(...(await values(gradient)));
      expect(size, names[i]).toBeGreaterThan(0);
      expect(size, names[i]).toBeLessThan(1e4);
    }
    adapter.disable();
    expect(await values(model.forward(idsOf()))).toEqual(before);
  });

  test("a prompt of some tokens' embeddings is what those tokens are", async () => {
    const model = await modelOf(type);
    const whole = await values(model.forward(idsOf()));
    applyAdapter(model, { method: "prompt", virtualTokens: 2, initTokens: [1, 5] });
    const rest = await values(model.forward(tensor([[9, 2, 7]], { device: dev, dtype: "i32" })));
    expect(rest.length).toBe(whole.length);
    for (const [i, value] of rest.entries()) expect(value).toBeCloseTo(whole[i] ?? Number.NaN, 5);
  });

  test("a prefix goes before every layer's keys, or is refused where a layer has none", async () => {
    const model = await modelOf(type);
    const put = (): unknown => applyAdapter(model, { method: "prefix", virtualTokens: 2 });
    if (type === "lfm2") expect(put).toThrow(/this model has layers without them/);
    else {
      const before = await values(model.forward(idsOf()));
      put();
      expect(await values(model.forward(idsOf()))).not.toEqual(before);
    }
  });
});
