import { readFileSync } from "node:fs";
import { initModel, loadModel, modelOutline, saveModel } from "@lowrank/models";
import {
  type ByteSource,
  CheckpointError,
  type Device,
  decode,
  fileSource,
  fromBytes,
  memoryFiles,
  planningDevice,
  type QuantizedType,
  quantizedTypes,
  readSafetensors,
  type Tensor,
  tensor,
  writeSafetensors,
} from "@lowrank/tensor";
import { sharedDir, testBackend, testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

const isCpu = testBackend() === "cpu";
const sizes = { vocab_size: 24, num_hidden_layers: 1, num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 16 };
const configs = {
  llama: { ...sizes, model_type: "llama", hidden_size: 64, intermediate_size: 256, tie_word_embeddings: false },
  gpt2: { model_type: "gpt2", vocab_size: 24, n_layer: 1, n_embd: 64, n_head: 4, n_positions: 16 },
  mixtral: { ...sizes, model_type: "mixtral", hidden_size: 64, intermediate_size: 32, num_local_experts: 2, num_experts_per_tok: 1 },
} as const;
type Kind = keyof typeof configs;

async function saved(kind: Kind, change: (tensors: Map<string, Tensor>) => void = () => {}): Promise<ReturnType<typeof memoryFiles>> {
  const files = memoryFiles();
  const model = await initModel({ ...configs[kind], initializer_range: 0.2 }, { device: dev });
  await saveModel(model, "model", { files, dtype: "bf16" });
  for (const parameter of model.namedParameters().values()) parameter.dispose();
  const path = "model/model.safetensors";
  const source = await files.open(path);
  if (!source) throw new Error("nothing was saved");
  const file = await readSafetensors(source);
  const tensors = new Map<string, Tensor>();
  for (const name of file.entries.keys()) tensors.set(name, await file.tensor(name, { device: dev }));
  change(tensors);
  await files.write(path, writeSafetensors(tensors));
  return files;
}

const packedNames = (parameters: ReadonlyMap<string, Tensor>): Record<string, string> =>
  Object.fromEntries([...parameters].flatMap(([name, { packing }]) => (packing ? [[name, packing.type] as const] : [])));

const floats = async (t: Tensor): Promise<Float32Array> => (await t.data()) as Float32Array;
const ids = (): Tensor => tensor([[1, 5, 7, 2, 20, 3]], { dtype: "i32", device: dev });

/** Half the widest step between two codes over the largest number, with what rounding scales adds. */
const mostError: Readonly<Record<QuantizedType, number>> = {
  nf4: 0.16,
  fp4: 0.18,
  int8: 0.005,
  q8_0: 0.005,
  q6_k: 0.03,
  q5_k: 0.05,
  q5_1: 0.04,
  q5_0: 0.07,
  q4_k: 0.08,
  q4_1: 0.08,
  q4_0: 0.14,
  mxfp4: 0.18,
};

const types = isCpu ? quantizedTypes : (["nf4", "q4_0"] as const);
test.each(types)("a checkpoint loaded with quantize %s computes with the numbers of its blocks", async (type) => {
  const files = await saved("llama");
  const { model: plain, hashes } = await loadModel("model", { device: dev, files, dtype: "f32" });
  const { model, hashes: ownHashes } = await loadModel("model", { device: dev, files, quantize: type });
  expect(model.quantization).toBe(type);
  expect(ownHashes).toEqual(hashes);
  const own = model.namedParameters();
  const projections = ["q", "k", "v", "o"].map((name) => `model.layers.0.self_attn.${name}_proj.weight`);
  const mlp = ["gate", "up", "down"].map((name) => `model.layers.0.mlp.${name}_proj.weight`);
  expect(Object.keys(packedNames(own)).sort()).toEqual([...projections, ...mlp].sort());
  for (const [name, weight] of plain.namedParameters()) {
    const [values, found] = [await floats(weight), await floats(own.get(name) as Tensor)];
    const largest = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    const limit = own.get(name)?.packing ? mostError[type] * largest : 0;
    const most = values.reduce((error, value, i) => Math.max(error, Math.abs(value - (found[i] ?? Number.NaN))), 0);
    expect(most, name).toBeLessThanOrEqual(limit);
    // From here on a dense model of the numbers that the blocks say.
    weight.assign(tensor(found, { shape: weight.shape, device: dev }));
  }
  const [wanted, got] = [await plain.forward(ids()).data(), await model.forward(ids()).data()];
  // The same sums in f32, in another order.
  for (const [i, value] of wanted.entries()) expect(Math.abs((got[i] ?? 0) - value)).toBeLessThan(1e-4);
});

describe("what is quantized", () => {
  const cases: readonly (readonly [
    kind: Kind,
    type: QuantizedType,
    packed: Readonly<Record<string, string>>,
    warnings: readonly RegExp[],
  ])[] = [
    [
      "llama",
      "q4_k",
      {
        "self_attn.q_proj": "Q5_0",
        "self_attn.k_proj": "Q5_0",
        "self_attn.v_proj": "Q5_0",
        "self_attn.o_proj": "Q5_0",
        "mlp.gate_proj": "Q5_0",
        "mlp.up_proj": "Q5_0",
        "mlp.down_proj": "Q4_K",
      },
      [/^quantize q4_k: 6 weights with rows of 64, no multiple of what q4_k needs, are q5_0\.$/],
    ],
    ["gpt2", "int8", { "attn.c_attn": "int8", "attn.c_proj": "int8", "mlp.c_fc": "int8", "mlp.c_proj": "int8" }, []],
    [
      "mixtral",
      "q8_0",
      {
        "self_attn.q_proj": "Q8_0",
        "self_attn.k_proj": "Q8_0",
        "self_attn.v_proj": "Q8_0",
        "self_attn.o_proj": "Q8_0",
        "mlp.experts.gate_up_proj": "Q8_0",
        "mlp.experts.down_proj": "Q8_0",
      },
      [],
    ],
  ];
  test.each(cases)("of %s in %s", async (kind, type, packed, warnings) => {
    const { model, warnings: told } = await loadModel("model", { device: dev, files: await saved(kind), quantize: type });
    const found = packedNames(model.namedParameters());
    const short = (name: string): string => name.replace(/^.*?\.0\./, "").replace(/\.weight$/, "");
    expect(Object.fromEntries(Object.entries(found).map(([name, own]) => [short(name), own]))).toEqual(packed);
    expect(told).toHaveLength(warnings.length);
    for (const [i, warning] of warnings.entries()) expect(told[i]).toMatch(warning);
    // An outline for planning has the same parts.
    const { device } = planningDevice(dev);
    const outline = modelOutline({ ...configs[kind] }, { device, dtype: "bf16", quantize: type });
    expect(packedNames(outline.namedParameters())).toEqual(found);
    for (const [name, weight] of outline.namedParameters())
      expect(weight.packing?.bytes, name).toBe(model.namedParameters().get(name)?.packing?.bytes);
    expect((await model.forward(ids()).data()).every(Number.isFinite)).toBe(true);
  });

  test("rows of GPT-2's [in, out] weights share a scale by outputs, as bitsandbytes' do", async () => {
    const name = "h.0.attn.c_attn.weight";
    const files = await saved("gpt2", (tensors) => {
      const key = [...tensors.keys()].find((own) => own.endsWith(name)) ?? name;
      const values = Float32Array.from({ length: 64 * 192 }, (_, i) => ((i % 192) + 1) * (Math.floor(i / 192) % 2 === 0 ? 1 : -0.5));
      tensors.set(key, tensor(values, { shape: [64, 192], device: dev }));
    });
    const { model } = await loadModel("model", { device: dev, files, quantize: "int8" });
    const weight = [...model.namedParameters()].find(([own]) => own.endsWith(name))?.[1];
    expect(Array.from((await weight?.packing?.parts["scb"]?.data()) ?? [])).toEqual(Array.from({ length: 192 }, (_, i) => i + 1));
    expect(weight?.shape).toEqual([64, 192]);
  });
});

describe("a folder that is written quantized is the one that is quantized while it is loaded", () => {
  test.each([
    ["llama", "nf4"],
    ["llama", "fp4"],
    ["llama", "int8"],
    ["gpt2", "nf4"],
    ["gpt2", "int8"],
  ] as const)("%s in %s", async (kind, type) => {
    const files = await saved(kind);
    const { model: dense } = await loadModel("model", { device: dev, files });
    await saveModel(dense, "out", { files, quantize: type });
    const { model: wanted } = await loadModel("model", { device: dev, files, quantize: type });
    const { model: found, warnings } = await loadModel("out", { device: dev, files });
    expect(warnings).toEqual([]);
    expect(packedNames(found.namedParameters())).toEqual(packedNames(wanted.namedParameters()));
    for (const [name, weight] of wanted.namedParameters())
      expect(await floats(found.namedParameters().get(name) as Tensor), name).toEqual(await floats(weight));
    expect(await found.forward(ids()).data()).toEqual(await wanted.forward(ids()).data());
  });

  test("experts stay as they are, and are named where transformers would look for them in blocks", async () => {
    const files = await saved("mixtral");
    const { model: dense } = await loadModel("model", { device: dev, files });
    await saveModel(dense, "out", { files, quantize: "nf4" });
    const { model } = await loadModel("out", { device: dev, files });
    expect(Object.keys(packedNames(model.namedParameters())).sort()).toEqual(
      ["k", "o", "q", "v"].map((name) => `model.layers.0.self_attn.${name}_proj.weight`),
    );
  });

  const quant = sharedDir("quant");
  test.skipIf(quant === null).each([
    ["llama-nf4", "nf4"],
    ["llama-int8", "int8"],
  ] as const)("with the tensors and the settings that bitsandbytes itself wrote: %s", async (name, type) => {
    const files = memoryFiles();
    const path = `${quant}/${name}/model`;
    const { model } = await loadModel(path, { device: dev });
    await saveModel(model, "out", { files, quantize: type, dtype: type === "nf4" ? "bf16" : "f16" });
    const headerOf = async (source: ByteSource | null): Promise<unknown> => {
      if (!source) throw new Error("there are no weights");
      const file = await readSafetensors(source);
      // Our state of a weight is as long for each, with blanks at its end.
      const entries = [...file.entries.values()].map((entry) => [
        entry.name,
        entry.dtype,
        ...(entry.name.includes("quant_state") ? [] : [entry.shape]),
      ]);
      await file.close();
      return entries.sort();
    };
    expect(await headerOf(await files.open("out/model.safetensors"))).toEqual(
      await headerOf(await fileSource(`${path}/model.safetensors`)),
    );
    const configOf = (text: string): unknown => JSON.parse(text).quantization_config;
    expect(configOf(new TextDecoder().decode(files.files.get("out/config.json")))).toEqual(
      type === "nf4" ? configOf(readFileSync(`${path}/config.json`, "utf8")) : expect.objectContaining({ load_in_8bit: true }),
    );
    const { model: again } = await loadModel("out", { device: dev, files });
    const [wanted, found] = [await model.forward(ids()).data(), await again.forward(ids()).data()];
    // The numbers of blocks are put into blocks again: scales in 8 bits are rounded once more.
    for (const [i, value] of wanted.entries()) expect(Math.abs((found[i] ?? 0) - value)).toBeLessThan(0.02);
  });

  test("a type that no folder has is refused before anything is written", async () => {
    const files = await saved("llama");
    const { model } = await loadModel("model", { device: dev, files });
    const save = saveModel(model, "out", { files, quantize: "q4_0" as "nf4" });
    await expect(save).rejects.toThrow(/cannot hold weights in "q4_0"\. Choose among nf4, fp4, int8, or write a GGUF file with saveGguf/);
    expect(await files.list("out")).toBeNull();
  });
});

test("a type that there is not is refused with those that there are, before anything is read", async () => {
  const load = loadModel("nowhere", { device: dev, files: memoryFiles(), quantize: "q3_k" as QuantizedType });
  await expect(load).rejects.toThrow(CheckpointError);
  await expect(load).rejects.toThrow(/loadModel: weights cannot be quantized to "q3_k"\. Choose among nf4, fp4, int8, q8_0/);
});

test("numbers that are not finite are refused with tensor and place, and no memory stays behind", async () => {
  const files = await saved("llama", (tensors) => {
    const bytes = new Uint8Array(2 * 64 * 64);
    bytes.set([0xc0, 0x7f], 2 * 130);
    tensors.set("model.layers.0.self_attn.q_proj.weight", fromBytes(bytes, "bf16", [64, 64], dev));
    expect(decode(bytes, "bf16")[130]).toBeNaN();
  });
  await expect(loadModel("model", { device: dev, files, quantize: "nf4" })).rejects.toThrow(
    /tensor "model.layers.0.self_attn.q_proj.weight" is NaN at \[2, 2\]/,
  );
});

test("numbers of before are read once more", async () => {
  const files = await saved("gpt2");
  const [plain, quantized] = [
    await loadModel("model", { device: dev, files }),
    await loadModel("model", { device: dev, files, quantize: "nf4" }),
  ];
  const name = [...quantized.model.namedParameters().keys()].find((own) => own.endsWith("attn.c_attn.weight")) ?? "";
  const weight = quantized.model.namedParameters().get(name) as Tensor;
  expect(Array.from((await quantized.model.storedWeight(weight)) ?? [])).toEqual(
    Array.from(await floats(plain.model.namedParameters().get(name) as Tensor)),
  );
  expect(plain.model.storedWeight(weight)).toBeNull();
});
