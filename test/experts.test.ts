// LoRA on the weights of experts: targets and files as PEFT 0.21 has them with transformers 5, and what merging does.
import { AdapterError, applyAdapter, loadAdapter, merge, saveAdapter, unmerge } from "@lowrank/lora";
import { type CausalLM, initModel } from "@lowrank/models";
import { type Device, Generator, memoryFiles, readText, type Tensor, tensor } from "@lowrank/tensor";
import { testBackend, testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";

const sizes = {
  vocab_size: 13,
  hidden_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 6,
  max_position_embeddings: 32,
};
const configs = {
  mixtral: { ...sizes, model_type: "mixtral", intermediate_size: 5, num_local_experts: 3, num_experts_per_tok: 2 },
  gpt_oss: { ...sizes, model_type: "gpt_oss", intermediate_size: 5, num_local_experts: 3, num_experts_per_tok: 2, sliding_window: 4 },
  qwen3_moe: {
    ...sizes,
    model_type: "qwen3_moe",
    intermediate_size: 7,
    moe_intermediate_size: 4,
    num_experts: 4,
    num_experts_per_tok: 2,
    mlp_only_layers: [0],
  },
} as const;

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});
const modelOf = (family: keyof typeof configs): Promise<CausalLM> =>
  initModel({ ...configs[family], initializer_range: 0.5 }, { device: dev, seed: 3 });
const ids = (): Tensor => tensor([[1, 2, 3, 4, 5, 6, 7]], { dtype: "i32", device: dev });

async function savedConfig(model: CausalLM, targets: string | readonly string[]): Promise<Readonly<Record<string, unknown>>> {
  const files = memoryFiles();
  const adapter = applyAdapter(model, { method: "lora", rank: 4, alpha: 8, targets, onWarning: () => {} });
  await saveAdapter(adapter, "/a", { files });
  const source = await files.open("/a/adapter_config.json");
  if (!source) throw new Error("there is no adapter_config.json");
  return JSON.parse(await readText(source)) as Readonly<Record<string, unknown>>;
}

describe("what targets say of experts", () => {
  const patterns = { rank_pattern: { ".*\\.gate_up_proj": 8 }, alpha_pattern: { ".*\\.gate_up_proj": 16 } };
  const attention = ["k_proj", "o_proj", "q_proj", "v_proj"];
  test.each([
    ["all-linear", "all-linear", attention],
    ["the layers of old", ["q_proj", "w1", "w2", "w3", "gate"], ["q_proj"]],
  ] as const)("mixtral, %s: the file says what PEFT's says", async (_name, targets, modules) => {
    expect(await savedConfig(await modelOf("mixtral"), targets)).toMatchObject({
      target_modules: modules,
      target_parameters: expect.arrayContaining(["down_proj", "gate.weight", "gate_up_proj"]),
      ...patterns,
    });
  });

  test("layers that are called as experts' were are experts alone, as in PEFT", async () => {
    const model = await modelOf("qwen3_moe");
    const adapter = applyAdapter(model, { method: "lora", rank: 2, targets: ["gate_proj", "up_proj", "down_proj"], onWarning: () => {} });
    expect([...adapter.namedParameters().keys()]).toEqual(
      ["experts.base_layer", "experts"].flatMap((name) =>
        ["A", "B"].map((key) => `base_model.model.model.layers.1.mlp.${name}.lora_${key}.weight`),
      ),
    );
    expect(adapter.namedParameters().get("base_model.model.model.layers.1.mlp.experts.base_layer.lora_A.weight")?.shape).toEqual([16, 12]);
  });

  test("PEFT translates no names of Nemotron-H's: they are the layers of the shared expert", async () => {
    const model = await initModel(
      {
        ...{ ...sizes, model_type: "nemotron_h", intermediate_size: 5, layers_block_type: ["moe", "attention"], initializer_range: 0.5 },
        ...{ n_routed_experts: 2, num_experts_per_tok: 1, moe_intermediate_size: 4, moe_shared_expert_intermediate_size: 3 },
      },
      { device: dev, seed: 3 },
    );
    const adapter = applyAdapter(model, { method: "lora", rank: 2, targets: ["up_proj", "down_proj"], onWarning: () => {} });
    expect([...adapter.places.keys()]).toEqual(["up_proj", "down_proj"].map((name) => `model.layers.0.mixer.shared_experts.${name}`));
    adapter.dispose();
  });

  test("an adapter that names experts is read by a model of its family whose layers have none", async () => {
    const dense = await initModel({ ...configs.qwen3_moe, mlp_only_layers: [0, 1] }, { device: dev, seed: 3 });
    const files = memoryFiles();
    await saveAdapter(applyAdapter(dense, { method: "lora", rank: 2, targets: ["q_proj"], onWarning: () => {} }), "/a", { files });
    const path = "/a/adapter_config.json";
    const config = JSON.parse(new TextDecoder().decode(files.files.get(path))) as object;
    await files.write(path, new TextEncoder().encode(JSON.stringify({ ...config, target_parameters: ["gate_up_proj", "down_proj"] })));
    const again = await initModel({ ...configs.qwen3_moe, mlp_only_layers: [0, 1] }, { device: dev, seed: 3 });
    expect([...(await loadAdapter(again, "/a", { files })).places.keys()]).toEqual(
      [0, 1].map((layer) => `model.layers.${layer}.self_attn.q_proj`),
    );
  });

  test("gpt-oss never had such layers: all-linear is attention, without the router", async () => {
    expect(await savedConfig(await modelOf("gpt_oss"), "all-linear")).toMatchObject({ target_modules: attention, target_parameters: null });
  });

  test.each([
    [["w1", "w2"], /targets name w1 of the experts and not w3: both are one weight, gate_up_proj/],
    [["q_proj", "up_proj"], /up_proj/],
  ])("%j is refused with what is missing", async (targets, says) => {
    const model = await modelOf("mixtral");
    expect(() => applyAdapter(model, { method: "lora", targets })).toThrow(AdapterError);
    expect(() => applyAdapter(model, { method: "lora", targets })).toThrow(says);
  });

  test("a weight that is not there is refused by name", async () => {
    const model = await modelOf("mixtral");
    const options = { method: "lora", targets: ["q_proj"], targetParameters: ["experts.up_proj"] } as const;
    expect(() => applyAdapter(model, options)).toThrow(/experts\.up_proj name no weight of a dense layer or of experts/);
  });
});

// A software adapter compiles the shaders of one model for minutes.
describe.each(testBackend() === "cpu" ? (["mixtral", "gpt_oss"] as const) : (["gpt_oss"] as const))("%s with LoRA on experts", (family) => {
  test("begins as the base, computes what its merged weights do, and is taken out again", async () => {
    const model = await modelOf(family);
    const base = await model.forward(ids()).data();
    const targetParameters = ["experts.gate_up_proj", "experts.down_proj"];
    const adapter = applyAdapter(model, { method: "lora", rank: 2, alpha: 4, targets: [], targetParameters, seed: 4 });
    expect([...(await model.forward(ids()).data())]).toEqual([...base]);
    const generator = new Generator(dev, 5);
    for (const [name, t] of adapter.namedParameters()) if (name.includes("lora_B")) t.assign(generator.normal(t.shape).mul(0.3));
    const adapted = await model.forward(ids()).data();
    const away = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
      Math.max(...Array.from(a, (x, i) => Math.abs(x - (b[i] ?? Number.NaN))));
    expect(away(adapted, base)).toBeGreaterThan(0.01);
    merge(adapter);
    expect(away(await model.forward(ids()).data(), adapted)).toBeLessThan(1e-4);
    unmerge(adapter);
    expect(away(await model.forward(ids()).data(), adapted)).toBeLessThan(1e-4);
    adapter.disable();
    expect(away(await model.forward(ids()).data(), base)).toBeLessThan(1e-4);
  });
});
