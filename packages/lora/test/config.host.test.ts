// Configurations of PEFT's, of today and of old, and fields that are refused.
import { type Device, device, fromBytes, memoryFiles, readSafetensors, type Tensor, writeSafetensors } from "@lowrank/tensor";
import { beforeAll, describe, expect, test } from "vitest";
import { type AdapterOptions, applyAdapter, loadAdapter, saveAdapter } from "../src/index.js";
import { rows, TinyModel } from "./tiny.js";

let dev: Device;
beforeAll(async () => {
  dev = await device("reference");
});

type Files = ReturnType<typeof memoryFiles>;
type Change = (config: Record<string, unknown>) => Record<string, unknown>;

/** An adapter's folder "a", its configuration and its tensors' names changed. */
async function saved(options: Partial<AdapterOptions>, change: Change, rename: (name: string) => string = (name) => name): Promise<Files> {
  const files = memoryFiles();
  const adapter = applyAdapter(new TinyModel(dev), { method: "lora", rank: 2, targets: ["q_proj"], ...options } as AdapterOptions);
  await saveAdapter(adapter, "a", { files });
  const config = JSON.parse(new TextDecoder().decode(files.files.get("a/adapter_config.json"))) as Record<string, unknown>;
  files.files.set("a/adapter_config.json", new TextEncoder().encode(JSON.stringify(change(config))));
  const tensors = new Map([...adapter.savedTensors()].map(([name, tensor]) => [rename(name), tensor] as const));
  const written = memoryFiles();
  await written.write("t", writeSafetensors(tensors, { format: "pt" }));
  files.files.set("a/adapter_model.safetensors", written.files.get("t") ?? new Uint8Array());
  return files;
}

describe("fields of LoraConfig that are set and not supported are refused by name", () => {
  const fields: Readonly<Record<string, unknown>> = {
    alora_invocation_tokens: [1, 2],
    arrow_config: { top_k: 3 },
    corda_config: { corda_method: "ipm" },
    kasa_config: { beta: 0.1 },
    layer_replication: [[0, 2]],
    loftq_config: { loftq_bits: 4 },
    lora_ga_config: { direction: "ArB2r" },
    megatron_config: { hidden_size: 8 },
    monteclora_config: { samples: 4 },
    use_bdlora: { nblocks: 2 },
    use_qalora: true,
    velora_config: { groups: 1 },
    init_lora_weights: "loftq",
    bias: "most",
    some_field_of_the_future: 1,
  };
  test.each(Object.entries(fields))("%s", async (name, value) => {
    const files = await saved({}, (config) => ({ ...config, [name]: value }));
    await expect(loadAdapter(new TinyModel(dev), "a", { files })).rejects.toThrow(name);
  });

  test("and these are all that a configuration has beside those that are read", async () => {
    const files = await saved({}, (config) => config);
    const config = JSON.parse(new TextDecoder().decode(files.files.get("a/adapter_config.json"))) as Record<string, unknown>;
    const read = [
      ...["alpha_pattern", "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config", "exclude_modules"],
      ...["fan_in_fan_out", "inference_mode", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_bias", "lora_dropout"],
      ...["megatron_core", "modules_to_save", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision"],
      ...["target_modules", "target_parameters", "task_type", "trainable_token_indices", "use_dora", "use_rslora"],
    ];
    const refused = Object.keys(fields).filter((name) => name !== "some_field_of_the_future");
    expect(Object.keys(config).sort()).toEqual([...read, ...refused].sort());
  });
});

describe("files of other versions and tools are read", () => {
  const only =
    (...names: readonly string[]): Change =>
    (config) =>
      Object.fromEntries(Object.entries(config).filter(([name]) => names.includes(name)));
  const first = ["base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "init_lora_weights", "lora_alpha", "lora_dropout"];
  const old = [...first, "modules_to_save", "peft_type", "r", "target_modules", "task_type"];
  const cases: readonly [string, Partial<AdapterOptions>, Change, (name: string) => string][] = [
    ["PEFT 0.4: fewer fields", {}, only(...old, "layers_pattern", "layers_to_transform", "revision"), (name) => name],
    ["PEFT 0.2: layers_pattern was not there", {}, only(...old), (name) => name],
    ["nothing but what is needed", {}, only("peft_type", "r", "target_modules"), (name) => name],
    [
      "PEFT 0.9: the magnitude's name",
      { method: "dora" },
      only(...old, "use_dora", "use_rslora", "rank_pattern", "alpha_pattern"),
      (name) => name.replace(/magnitude_vector$/, "magnitude_vector.weight"),
    ],
    [
      "PEFT 0.18: without the fields of today",
      {},
      ({ kasa_config: _, monteclora_config: __, velora_config: ___, ...rest }) => rest,
      (name) => name,
    ],
    [
      "the adapter's name in the keys",
      { method: "dora" },
      (config) => config,
      (name) =>
        name.replace(/(\.weight|_vector)$/, ".default$1").replace("lora_magnitude.default_vector", "lora_magnitude_vector.default.weight"),
    ],
    ["names of the base alone", {}, (config) => config, (name) => name.replace("base_model.model.", "")],
    ["numbers of layers and their pattern", { layers: [0, 1], layersPattern: "layers" }, (config) => config, (name) => name],
  ];
  test.each(cases)("%s", async (_, options, change, rename) => {
    const files = await saved({ alpha: 8, ...options }, change, rename);
    const adapter = await loadAdapter(new TinyModel(dev), "a", { files });
    const wanted = applyAdapter(new TinyModel(dev), {
      method: "lora",
      rank: 2,
      alpha: 8,
      targets: ["q_proj"],
      ...options,
    } as AdapterOptions);
    for (const [name, parameter] of wanted.namedParameters()) {
      const read = adapter.namedParameters().get(name) ?? expect.fail(name);
      const [got, expected] = [await read.data(), await parameter.data()];
      expect(Math.max(...Array.from(got, (value, i) => Math.abs(value - (expected[i] ?? Number.NaN)))), name).toBeLessThan(1e-6);
    }
  });
});

test("a base weight that the file repeats with other values is refused", async () => {
  const files = await saved({ targets: ["lm_head"] }, (config) => config);
  const file = await readSafetensors((await files.open("a/adapter_model.safetensors")) ?? expect.fail());
  const tensors = new Map<string, Tensor>();
  for (const name of file.entries.keys()) tensors.set(name, await file.tensor(name, { device: dev }));
  const name = "base_model.model.lm_head.base_layer.weight";
  expect([...tensors.keys()]).toContain(name);
  await expect(loadAdapter(new TinyModel(dev), "a", { files })).resolves.toBeDefined();
  tensors.set(name, rows(dev, 5, 8, 9));
  await files.write("a/adapter_model.safetensors", writeSafetensors(tensors, { format: "pt" }));
  await expect(loadAdapter(new TinyModel(dev), "a", { files })).rejects.toThrow(
    /lm_head\.base_layer\.weight holds other values than the model/,
  );
  tensors.set(name, fromBytes(new Uint8Array(80), "bf16", [5, 8], dev));
  await files.write("a/adapter_model.safetensors", writeSafetensors(tensors, { format: "pt" }));
  await expect(loadAdapter(new TinyModel(dev), "a", { files })).rejects.toThrow(/another vocabulary/);
});
