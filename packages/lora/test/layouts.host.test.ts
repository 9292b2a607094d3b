import { type Adapter, AdapterError, adapterOutline, applyAdapter, loadAdapter, saveAdapter, saveMlxAdapter } from "@lowrank/lora";
import { bytesSource, device, memoryFiles, readSafetensors, type Tensor, tensor, writeSafetensors } from "@lowrank/tensor";
import { describe, expect, test } from "vitest";
import { rows, TinyModel } from "./tiny.js";

const dev = await device("cpu", { threads: 1 });
const quiet = { onWarning: () => {} };
type Files = ReturnType<typeof memoryFiles>;
type Options = Parameters<typeof applyAdapter>[1];

/** A trained adapter on a model: every parameter random. */
function trained(model: TinyModel, options: Options): Adapter {
  const adapter = applyAdapter(model, { ...options, ...quiet } as Options);
  for (const [i, parameter] of adapter.parameters().entries())
    parameter.assign(rows(dev, parameter.sizeAt(0), parameter.size / parameter.sizeAt(0), i + 5).reshape(parameter.shape));
  return adapter;
}

async function tensorsOf(files: Files, name: string): Promise<Map<string, Tensor>> {
  const file = await readSafetensors(bytesSource(files.files.get(name) ?? new Uint8Array(), name));
  const found = new Map<string, Tensor>();
  for (const key of file.entries.keys()) found.set(key, await file.tensor(key, { device: dev }));
  return found;
}

const json = (files: Files, name: string): Record<string, unknown> => JSON.parse(new TextDecoder().decode(files.files.get(name)));
const put = (files: Files, name: string, value: unknown): Promise<void> =>
  files.write(name, new TextEncoder().encode(JSON.stringify(value)));
const outputs = async (model: TinyModel): Promise<number[]> => Array.from(await model.forward(rows(dev, 3, 8, 3)).data());

/** The files of an adapter with its tensors under other names and fields in its configuration, and what the model with it computes. */
async function renamed(options: Options, name: (key: string) => string, fields: object = {}) {
  const files = memoryFiles();
  const model = new TinyModel(dev);
  await saveAdapter(trained(model, options), "a", { files });
  const tensors = await tensorsOf(files, "a/adapter_model.safetensors");
  await files.write("a/adapter_model.safetensors", writeSafetensors(new Map([...tensors].map(([key, value]) => [name(key), value]))));
  await put(files, "a/adapter_config.json", { ...json(files, "a/adapter_config.json"), ...fields });
  return { files, expected: await outputs(model) };
}

const lora: Options = { method: "lora", rank: 2, targets: ["q_proj", "c_fc"], bias: "targeted", modulesToSave: ["lm_head"] };
const plain: Options = { method: "lora", rank: 2, targets: ["q_proj", "c_fc"] };

describe("a tensor of PEFT's is found by whichever name it has", () => {
  test.each<readonly [string, Options, (key: string) => string, object]>([
    ["its own", lora, (key) => key, {}],
    ["with the adapter's name in it", lora, (key) => key.replace(/(lora_[AB])\.weight$/, "$1.my_adapter.weight"), {}],
    [
      "a module trained whole, with the adapter's name",
      lora,
      (key) => key.replace("lm_head.weight", "lm_head.modules_to_save.mine.weight"),
      {},
    ],
    ["DoRA's magnitude with the adapter's name", { ...plain, method: "dora" }, (key) => key.replace(/vector$/, "vector.mine.weight"), {}],
    ["DoRA's magnitude of old", { ...plain, method: "dora" }, (key) => key.replace(/vector$/, "vector.weight"), {}],
    [
      "(IA)³'s with the adapter's name",
      { method: "ia3", targets: ["q_proj"], feedforward: [] },
      (key) => key.replace(/ia3_l$/, "ia3_l.mine"),
      {},
    ],
    ["VeRA's with the adapter's name", { method: "vera", targets: ["q_proj"] }, (key) => key.replace(/(vera_\w+)$/, "$1.mine"), {}],
    ["without the names of PEFT's wrappers", lora, (key) => key.replace("base_model.model.", ""), {}],
    ["behind torch.compile and DDP", plain, (key) => `module.${key.replace("base_model.model.", "base_model.model._orig_mod.")}`, {}],
    ["inside FSDP", plain, (key) => key.replace(".layers.", ".layers._fsdp_wrapped_module."), {}],
    ["below another model's name", plain, (key) => key.replace(".model.layers.", ".model.model.language_model.layers."), {}],
    [
      "below another model's name, chosen by that one's expression",
      plain,
      (key) => key.replace(".model.layers.", ".model.model.language_model.layers."),
      { target_modules: String.raw`.*language_model.*\.(q_proj|c_fc)`, layers_to_transform: null },
    ],
  ])("%s", async (_, options, name, fields) => {
    const { files, expected } = await renamed(options, name, fields);
    const model = new TinyModel(dev);
    await loadAdapter(model, "a", { files, ...quiet });
    expect(await outputs(model)).toEqual(expected);
  });

  test("beside the biases of a module that is trained whole, the base's and a second time the trained one", async () => {
    const { files, expected } = await renamed(
      { ...plain, targets: ["q_proj"], bias: "all", modulesToSave: ["c_fc"] } as Options,
      (key) => key,
    );
    const tensors = await tensorsOf(files, "a/adapter_model.safetensors");
    const whole = [...tensors].filter(([key]) => key.endsWith(".c_fc.bias"));
    expect(whole.length).toBeGreaterThan(0);
    const wrapped = whole.flatMap(([key, value]) => [
      [key.replace(/bias$/, "modules_to_save.bias"), value] as const,
      [key.replace(/bias$/, "original_module.bias"), value.mul(0)] as const,
    ]);
    await files.write("a/adapter_model.safetensors", writeSafetensors(new Map([...tensors, ...wrapped])));
    const model = new TinyModel(dev);
    await loadAdapter(model, "a", { files, ...quiet });
    expect(await outputs(model)).toEqual(expected);
  });

  test("of a model that sees as well, modules that are trained whole are filed by their whole names", async () => {
    const files = memoryFiles();
    const text = Object.assign(new TinyModel(dev), { wholePath: "model.language_model." });
    await saveAdapter(applyAdapter(text, { ...plain, targets: ["q_proj"], modulesToSave: ["c_fc"], ...quiet } as Options), "a", { files });
    expect(json(files, "a/adapter_config.json")["modules_to_save"]).toEqual(["layers.0.c_fc", "layers.1.c_fc"]);
  });

  test("of an adapter of a model that sees as well, what its towers have is left out with a word", async () => {
    const { files, expected } = await renamed(plain, (key) => key);
    const tensors = await tensorsOf(files, "a/adapter_model.safetensors");
    const tower = ["A", "B"].map(
      (key) => [`base_model.model.model.vision_tower.layers.0.fc1.lora_${key}.weight`, rows(dev, 2, 2, 1)] as const,
    );
    await files.write("a/adapter_model.safetensors", writeSafetensors(new Map([...tensors, ...tower])));
    const text = Object.assign(new TinyModel(dev), { wholePath: "model.language_model." });
    const said: string[] = [];
    await loadAdapter(text, "a", { files, onWarning: (message) => said.push(message) });
    expect(said).toEqual([expect.stringMatching(/2 tensors of vision_tower belong to no text model and are not read/)]);
    expect(await outputs(text)).toEqual(expected);
    await expect(loadAdapter(new TinyModel(dev), "a", { files, ...quiet })).rejects.toThrow(/vision_tower\.layers\.0\.fc1\.lora_A/);
  });

  test.each<readonly [string, (key: string) => string, RegExp]>([
    ["what has no place", (key) => key.replace("layers.0.q_proj", "layers.0.z_proj"), /layers\.0\.z_proj\.lora_A\.weight/],
    ["another beginning for some", (key) => key.replace("model.layers.0", "model.tower.layers.0"), /tower\.layers\.0\.\w+\.lora_A\.weight/],
    [
      "another layer for another",
      (key) => key.replace("layers.0.", "layers.7.").replace("layers.1.", "layers.8."),
      /layers\.7\.\w+\.lora_A/,
    ],
  ])("%s is refused and named", async (_, name, says) => {
    const { files } = await renamed(plain, name);
    const error: unknown = await loadAdapter(new TinyModel(dev), "a", { files, ...quiet }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(AdapterError);
    expect(String(error)).toMatch(says);
  });

  test("two adapters in one file are refused by both tensors' names", async () => {
    const { files } = await renamed(plain, (key) => key);
    const tensors = await tensorsOf(files, "a/adapter_model.safetensors");
    const two = [...tensors].flatMap(([key, value]) =>
      ["one", "two"].map((name) => [key.replace(/\.weight$/, `.${name}.weight`), value] as const),
    );
    await files.write("a/adapter_model.safetensors", writeSafetensors(new Map(two)));
    await expect(loadAdapter(new TinyModel(dev), "a", { files, ...quiet })).rejects.toThrow(
      /lora_A\.one\.weight, .*lora_A\.two\.weight are one tensor of two adapters/,
    );
  });
});

/** The same adapter as mlx-lm keeps it, by the rules that SOURCES of such files state: transposes, one scale. */
async function asMlx(files: Files, config: object): Promise<Files> {
  const tensors = new Map<string, Tensor>();
  const last: Readonly<Record<string, string>> = { "lora_A.weight": "lora_a", "lora_B.weight": "lora_b", lora_magnitude_vector: "m" };
  for (const [key, value] of await tensorsOf(files, "a/adapter_model.safetensors")) {
    if (key.endsWith(".base_layer.weight")) continue; // what PEFT repeats of the base
    const [, path = "", name = ""] = /^base_model\.model\.(.*)\.(lora_[AB]\.weight|lora_magnitude_vector)$/.exec(key) ?? [];
    tensors.set(`${path}.${last[name]}`, value.rank === 2 ? value.t() : value);
  }
  const mlx = memoryFiles();
  await mlx.write("m/adapters.safetensors", writeSafetensors(tensors));
  await put(mlx, "m/adapter_config.json", { fine_tune_type: "lora", num_layers: -1, model: "some/base", ...config });
  return mlx;
}

const parameters = { rank: 2, scale: 4, dropout: 0.1 };

describe("mlx-lm's adapters", () => {
  test.each<readonly [string, Options, object]>([
    ["LoRA", { ...plain, alpha: 8 } as Options, { lora_parameters: parameters }],
    ["by keys within a layer", { ...plain, alpha: 8 } as Options, { lora_parameters: { ...parameters, keys: ["q_proj", "c_fc"] } }],
    ["of another rank than the configuration's", { ...plain, rank: 3, alpha: 12 } as Options, { lora_parameters: parameters }],
    ["DoRA", { ...plain, method: "dora", alpha: 8 } as Options, { fine_tune_type: "dora", lora_parameters: parameters }],
    ["the head", { ...plain, alpha: 8, targets: ["q_proj", "lm_head"] } as Options, { num_layers: 2, lora_parameters: parameters }],
  ])("%s: as PEFT's with alpha = scale · rank", async (_, options, config) => {
    const { files, expected } = await renamed(options, (key) => key);
    const mlx = await asMlx(files, config);
    const model = new TinyModel(dev);
    const adapter = await loadAdapter(model, "m", { files: mlx, ...quiet });
    expect(await outputs(model)).toEqual(expected);
    expect(adapter.origin.baseModel).toBe("some/base");
    expect((adapter.options as { dropout: number }).dropout).toBe(0.1);
  });

  test("are outlines as PEFT's are, for what needs no base", async () => {
    const { files } = await renamed({ ...plain, alpha: 8 } as Options, (key) => key);
    const mlx = await asMlx(files, { lora_parameters: parameters });
    const outline = await adapterOutline(["m"], { files: mlx, device: dev });
    expect([...outline.namedModules().keys()]).toEqual(["layers.0.c_fc", "layers.0.q_proj", "layers.1.c_fc", "layers.1.q_proj"]);
    expect((await loadAdapter(outline, "m", { files: mlx, ...quiet })).parameters()).toHaveLength(8);
  });

  test.each<readonly [string, object, ((tensors: Map<string, Tensor>) => void) | null, RegExp]>([
    ["whole weights", { fine_tune_type: "full" }, null, /mlx-lm trained whole weights here/],
    ["no rank", { lora_parameters: { scale: 1 } }, null, /lora_parameters\.rank is not what mlx-lm writes there/],
    ["a scale that is no number", { lora_parameters: { rank: 2, scale: "20" } }, null, /lora_parameters\.scale is not what/],
    [
      "a key that nobody reads",
      {},
      (tensors) => tensors.set("layers.0.q_proj.other", tensor([1], { device: dev })),
      /more than pairs lora_a and lora_b: layers\.0\.q_proj\.other/,
    ],
    [
      "a tensor without a module",
      {},
      (tensors) => tensors.set("lora_a", tensor([1], { device: dev })),
      /more than pairs lora_a and lora_b: lora_a/,
    ],
    ["half a pair", {}, (tensors) => tensors.delete("layers.0.q_proj.lora_b"), /layers\.0\.q_proj has only one half of its pair/],
    [
      "experts",
      {},
      (tensors) => tensors.set("layers.0.q_proj.lora_a", tensor([[[1]]], { device: dev })),
      /layers\.0\.q_proj has matrices for each of several experts/,
    ],
    [
      "a module that is not among the keys",
      { lora_parameters: { ...parameters, keys: ["c_fc"] } },
      null,
      /layers\.0\.q_proj, layers\.1\.q_proj are not among the keys/,
    ],
    ["more layers than num_layers", { num_layers: 1 }, null, /tensors of 2 layers, and num_layers .* is 1/],
    ["nothing", {}, (tensors) => tensors.clear(), /holds no tensors/],
  ])("%s is refused in a sentence", async (_, config, change, says) => {
    const { files } = await renamed(plain, (key) => key);
    const mlx = await asMlx(files, { lora_parameters: parameters, ...config });
    const tensors = await tensorsOf(mlx, "m/adapters.safetensors");
    change?.(tensors);
    await mlx.write("m/adapters.safetensors", writeSafetensors(tensors));
    const error: unknown = await loadAdapter(new TinyModel(dev), "m", { files: mlx, ...quiet }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(AdapterError);
    expect(String(error)).toMatch(says);
  });
});

describe("an adapter written for mlx-lm", () => {
  test.each<readonly [string, Options]>([
    ["LoRA", plain],
    ["DoRA", { ...plain, method: "dora" }],
    [
      "ranks, alphas and rsLoRA, which it has once for all",
      { ...plain, rslora: true, rankPattern: { c_fc: 5 }, alphaPattern: { "1.q_proj": 3 } } as Options,
    ],
    ["in one layer, on one module each", { method: "lora", rank: 2, targets: ["layers.1.q_proj", "layers.0.c_fc"] }],
    [
      "DoRA in one layer, where the others keep their magnitude",
      { method: "dora", rank: 2, targets: ["layers.1.q_proj", "layers.0.c_fc"] },
    ],
    ["weights by their names", { method: "lora", rank: 2, targets: [], targetParameters: ["q_proj.weight", "c_fc.weight"] } as Options],
    ["the head", { method: "lora", rank: 2, targets: ["lm_head"] }],
  ])("%s: is the same function", async (_, options) => {
    const files = memoryFiles();
    const model = Object.assign(new TinyModel(dev), { blocks: [block("layers.0"), block("layers.1")] });
    const adapter = trained(model, options);
    const expected = await outputs(model);
    await saveMlxAdapter(adapter, "m", { files });
    const again = Object.assign(new TinyModel(dev), { blocks: model.blocks });
    await loadAdapter(again, "m", { files, ...quiet });
    const found = await outputs(again);
    // B was divided by one scale and is multiplied by it, rounded to f32 each time.
    for (const [i, value] of found.entries())
      expect(Math.abs(value - (expected[i] ?? 0))).toBeLessThan(1e-5 * Math.max(1, Math.abs(value)));
  });

  test("names the modules of the last layers, fills the others with zeros, and keeps one rank and scale", async () => {
    const files = memoryFiles();
    const model = Object.assign(new TinyModel(dev, 1, 3), { blocks: ["layers.0", "layers.1", "layers.2"].map(block) });
    await saveMlxAdapter(
      trained(model, { method: "lora", rank: 2, alpha: 6, targets: ["layers.1.q_proj", "layers.2.c_fc", "lm_head"] }),
      "m",
      { files, baseModel: "some/base" },
    );
    const { lora_parameters: given, ...rest } = json(files, "m/adapter_config.json");
    expect(rest).toEqual({ fine_tune_type: "lora", model: "some/base", num_layers: 2 });
    expect(given).toEqual({ dropout: 0, keys: ["c_fc", "lm_head", "q_proj"], rank: 2, scale: 3 });
    const tensors = await tensorsOf(files, "m/adapters.safetensors");
    expect([...tensors.keys()].filter((name) => name.endsWith("lora_a")).sort()).toEqual(
      ["layers.1.c_fc", "layers.1.q_proj", "layers.2.c_fc", "layers.2.q_proj", "lm_head"].map((path) => `${path}.lora_a`),
    );
    expect(Array.from((await tensors.get("layers.2.q_proj.lora_b")?.data()) ?? [1])).toEqual(Array(16).fill(0));
  });

  test.each<readonly [string, Options, RegExp]>([
    ["another method", { method: "ia3", targets: ["q_proj"], feedforward: [] }, /this adapter is of method "ia3"\. Merge it into its base/],
    ["what is trained beside the pairs", lora, /the adapter has more: .*(bias|lm_head\.weight)/],
    ["biases in B", { ...plain, loraBias: true } as Options, /layers\.0\.q_proj\.lora_B\.bias/],
  ])("%s is refused", async (_, options, says) => {
    const files = memoryFiles();
    await expect(saveMlxAdapter(trained(new TinyModel(dev), options), "m", { files })).rejects.toThrow(says);
    expect(files.files.size).toBe(0);
  });
});

const block = (name: string) => ({ name, attentionNorm: null, attention: `${name}.q_proj`, mlpNorm: null, mlp: null });
