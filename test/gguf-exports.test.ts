// What is written for llama.cpp: models of every family that it has, and adapters as it applies them, each held to the families' maps.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Adapter, type AdapterOptions, applyAdapter, loadAdapter, merge, plainPairs } from "@lowrank/lora";
import { type GgufFileType, loadModel, saveGguf, saveGgufAdapter } from "@lowrank/models";
import { bytesSource, CheckpointError, Generator, type GgufFile, memoryFiles, readGguf, tensor } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { describe, expect, test } from "vitest";
import { filedModel } from "../packages/models/src/export/gguf-links.js";
import { toFile } from "../packages/models/src/families/gguf/change.js";
import { families } from "../packages/models/src/families/table.js";
import { familyCases } from "./family.js";

type Model = Awaited<ReturnType<typeof loadModel>>["model"];
const quiet = { onWarning: () => {} };

/** True for a folder whose family, or that of its text model, llama.cpp has. */
function mapped(folder: string): boolean {
  const config = JSON.parse(readFileSync(join(folder, "model", "config.json"), "utf8")) as {
    model_type: string;
    text_config?: { model_type: string };
  };
  return Boolean(families[config.text_config?.model_type ?? config.model_type]?.gguf);
}

async function opened(files: ReturnType<typeof memoryFiles>, path: string): Promise<GgufFile> {
  return readGguf(bytesSource(files.files.get(path) ?? new Uint8Array(), path));
}

async function numbersIn(file: GgufFile, name: string): Promise<Float32Array> {
  expect(file.entries.get(name)?.type.name).toBe("F32");
  return new Float32Array((await file.bytes(name)).slice().buffer);
}

/** B A · alpha / rank of the file's pair beside a tensor: what llama.cpp adds to it, [out, in]; of the embedding (B A)ᵀ. */
async function addedBy(file: GgufFile, name: string): Promise<Float64Array> {
  const [a, b] = [await numbersIn(file, `${name}.lora_a`), await numbersIn(file, `${name}.lora_b`)];
  const [rows = 0, rank = 0] = file.entries.get(`${name}.lora_b`)?.shape ?? [];
  const isTable = name === "token_embd.weight";
  const shape = file.entries.get(`${name}.lora_a`)?.shape ?? [];
  const columns = (isTable ? shape[0] : shape[1]) ?? 0;
  expect(isTable ? shape[1] : shape[0]).toBe(rank);
  const scale = Number(file.metadata.get("adapter.lora.alpha")) / rank;
  const sum = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++)
      for (let k = 0; k < rank; k++) {
        const at = isTable ? column * rows + row : row * columns + column;
        sum[at] = (sum[at] ?? 0) + scale * (b[row * rank + k] ?? 0) * (a[isTable ? column * rank + k : k * columns + column] ?? 0);
      }
  return sum;
}

/** What the adapter changes of each tensor of a file, by its merge and the family's map. */
async function changedBy(model: Model, adapter: Adapter): Promise<Map<string, Float64Array>> {
  const { links, nameOf } = filedModel(model, "x.gguf");
  const own = model.namedParameters();
  const paths = [...adapter.places.keys()].map((place) => `${place}.weight`);
  const before = new Map<string, Float32Array>();
  for (const name of paths) before.set(name, Float32Array.from((await own.get(name)?.data()) ?? []));
  merge(adapter);
  const changes = new Map<string, Float64Array>();
  for (const [name, from] of before) {
    const link = links.find(({ parameters }) => parameters[0]?.name === nameOf(name));
    if (!link) throw new Error(`no link of ${name}`);
    const [filed, target] = [toFile(link, from), toFile(link, Float32Array.from((await own.get(name)?.data()) ?? []))];
    let at = 0;
    for (const { name: tensor, shape } of link.tensors) {
      const size = shape.reduce((product, length) => product * length, 1);
      changes.set(
        tensor,
        Float64Array.from({ length: size }, (_, i) => (target[at + i] ?? 0) - (filed[at + i] ?? 0)),
      );
      at += size;
    }
  }
  return changes;
}

/** The reason where a family's model or adapter cannot be told by a file of llama.cpp; null where it was written. */
async function refusal(write: Promise<void>): Promise<string | null> {
  const error: unknown = await write.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (error === null) return null;
  if (!(error instanceof CheckpointError)) throw error;
  return error.message;
}

describe.each(familyCases.filter(({ name, folder }) => name.startsWith("own/") && mapped(folder)))("$name", ({ folder }) => {
  test("its adapter adds to each tensor of llama.cpp's file what merging adds to the model", async () => {
    const device = await testDevice();
    const { model } = await loadModel(join(folder, "model"), { device, dtype: "f32" });
    const adapter = await loadAdapter(model, join(folder, "adapter"), quiet);
    const files = memoryFiles();
    const others = [...adapter.places].filter(([, place]) => "projection" in (place as object));
    if (others.length > 0) {
      expect(() => plainPairs(adapter, "GGUF")).toThrow(/GGUF holds pairs on layers alone, and the adapter has more: .*experts/);
      return model.dispose();
    }
    const reason = await refusal(saveGgufAdapter(model, plainPairs(adapter, "GGUF"), "a.gguf", { files, name: "a" }));
    if (reason !== null) {
      expect(reason).toMatch(/no GGUF file can say|has no tensor for|Merge the adapter into its base/);
      expect(files.files.size).toBe(0);
      return model.dispose();
    }
    const file = await opened(files, "a.gguf");
    const expected = await changedBy(model, adapter);
    expect([...file.entries.keys()].sort()).toEqual([...expected.keys()].flatMap((name) => [`${name}.lora_a`, `${name}.lora_b`]).sort());
    for (const [name, change] of expected) {
      const found = await addedBy(file, name);
      expect(found.length).toBe(change.length);
      // The difference of two numbers near 1 in f32.
      for (const [i, value] of change.entries()) expect(Math.abs(value - (found[i] ?? 0)), name).toBeLessThan(1e-6);
    }
    model.dispose();
  });

  test("its model has llama.cpp's types, of every kind of file", async () => {
    const device = await testDevice();
    const { model } = await loadModel(join(folder, "model"), { device, dtype: "f32" });
    for (const type of ["f32", "f16", "q4_k_m"] satisfies GgufFileType[]) {
      const files = memoryFiles();
      const reason = await refusal(saveGguf(model, "m.gguf", { files, type, name: "m" }));
      if (reason !== null) {
        expect(reason).toMatch(/no GGUF file can say|has no tensor for/);
        continue;
      }
      const file = await opened(files, "m.gguf");
      const { links, parameters } = filedModel(model, "m.gguf");
      for (const link of links) {
        const numbers: number[] = [];
        for (const { name } of link.parameters)
          for (const value of (await parameters.get(name)?.cast("f32").data()) ?? []) numbers.push(value);
        const filed = toFile(link, Float32Array.from(numbers));
        let at = 0;
        for (const { name, shape } of link.tensors) {
          const entry = file.entries.get(name);
          const size = shape.reduce((product, length) => product * length, 1);
          expect(entry?.shape).toEqual(shape);
          if (type === "f32" || shape.length === 1) expect(await numbersIn(file, name)).toEqual(filed.subarray(at, at + size));
          else if (type === "f16") expect(["F16", "F32"]).toContain(entry?.type.name);
          else expect(["F32", "F16", "Q8_0", "Q5_0", "Q4_K", "Q6_K"]).toContain(entry?.type.name);
          at += size;
        }
      }
      if (type !== "f32") continue;
      const again = await loadModel("m.gguf", { device, files });
      // Falcon-H1's multipliers are told with each file.
      const told = again.warnings.filter((text) => !text.includes("an adapter computes something else here"));
      expect(told, "our own file is read whole").toEqual([]);
      again.model.dispose();
    }
    model.dispose();
  });
});

test.each([
  ["deepseek_v3", "self_attn.q_proj", "blk.0.attn_q.weight"],
  ["deepseek_v3", "self_attn.kv_a_proj_with_mqa", "blk.0.attn_kv_a_mqa.weight"],
  ["deepseek_v3", "lm_head", "output.weight"],
  ["deepseek_v3", "self_attn.o_proj", null],
  ["gemma4", "per_layer_model_projection", "per_layer_model_proj.weight"],
  ["gemma4", "per_layer_projection", null],
])("%s: a pair on %s is refused where llama.cpp would leave it out without a word", async (name, target, tensorName) => {
  const device = await testDevice();
  const folder = familyCases.find((each) => each.name === `own/${name}`)?.folder ?? "";
  const { model } = await loadModel(join(folder, "model"), { device, dtype: "f32" });
  const places = [...model.namedModules().keys()].filter((path) => path.endsWith(target));
  // What no file can say of this model is another test's.
  Object.assign(model.config, { rope_interleave: true });
  const adapter = applyAdapter(model, { method: "lora", rank: 2, targets: places, ...quiet });
  const files = memoryFiles();
  const written = saveGgufAdapter(model, plainPairs(adapter, "GGUF"), "a.gguf", { files, name: "a" });
  if (tensorName === null) await written;
  else
    await expect(written).rejects.toThrow(
      `llama.cpp looks for no pair beside ${tensorName}, and would leave it out. Merge the adapter into its base`,
    );
  expect(files.files.size).toBe(tensorName === null ? 1 : 0);
  model.dispose();
});

test.each(["gpt_neox-hub", "olmo2", "stablelm-hub"])(
  "%s: tied embeddings are filed as the head too, without which llama.cpp loads no such file",
  async (name) => {
    const device = await testDevice();
    const folder = familyCases.find((each) => each.name === `own/${name}`)?.folder ?? "";
    const { model } = await loadModel(join(folder, "model"), { device, dtype: "f32" });
    expect(model.namedParameters().has("lm_head.weight")).toBe(false);
    const files = memoryFiles();
    await saveGguf(model, "m.gguf", { files, type: "f32", name: "m" });
    const file = await opened(files, "m.gguf");
    expect(await numbersIn(file, "output.weight")).toEqual(await numbersIn(file, "token_embd.weight"));
    const again = await loadModel("m.gguf", { device, files });
    const ids = tensor([[3, 1, 4, 1, 5]], { dtype: "i32", device });
    const [wanted, found] = [await model.forward(ids).data(), await again.model.forward(ids).data()];
    // The same numbers, of which the head's are packed on their own.
    expect(Math.max(...wanted.map((value, i) => Math.abs(value - (found[i] ?? Number.NaN))))).toBeLessThan(1e-5);
    for (const each of [model, again.model]) each.dispose();
  },
);

test("a window that llama.cpp does not read is told, and no other", async () => {
  const told: Record<string, string[]> = { mixtral: [], qwen2: [], olmo3: [], mistral: [] };
  for (const [name, notes] of Object.entries(told)) {
    const folder = familyCases.find((each) => each.name === `own/${name}`)?.folder ?? "";
    const { model } = await loadModel(join(folder, "model"), { device: await testDevice() });
    await saveGguf(model, "m.gguf", { files: memoryFiles(), type: "f32", name: "m", onNote: (text) => notes.push(text) });
    model.dispose();
  }
  const note = expect.stringMatching(/see \d+ tokens back, and in llama\.cpp all/);
  // Of OLMo 3's YaRN as this model has it, something else is told.
  const ramp = expect.stringMatching(/llama\.cpp takes 32 and 1/);
  expect(told).toEqual({ mixtral: [note], qwen2: [note], olmo3: [ramp], mistral: [] });
});

test("a file with other tokens than Phi-3's does not have its name, by which llama.cpp looks for them", async () => {
  const folder = familyCases.find((each) => each.name === "own/qwen2")?.folder ?? "";
  const { model } = await loadModel(join(folder, "model"), { device: await testDevice() });
  const named = async (tokens: readonly string[]): Promise<unknown> => {
    const files = memoryFiles();
    const vocabulary = new Map([["tokenizer.ggml.tokens", { type: "string[]", value: tokens } as const]]);
    await saveGguf(model, "m.gguf", { files, type: "f32", name: "tuned-Phi-3 beside phi3", vocabulary });
    return (await opened(files, "m.gguf")).metadata.get("general.name");
  };
  expect(await named(["a"])).toBe("tuned-Phi 3 beside phi 3");
  expect(await named(["</s>", "<unk>", "<s>", "<|endoftext|>"])).toBe("tuned-Phi-3 beside phi3");
  model.dispose();
});

describe("an adapter on a small llama", () => {
  const tiny = (name: string): string => fileURLToPath(new URL(`../packages/lora/test/goldens/models/${name}`, import.meta.url));
  /** An adapter with random numbers. */
  async function trained(name: string, options: Partial<AdapterOptions>): Promise<{ model: Model; adapter: Adapter }> {
    const device = await testDevice();
    const { model } = await loadModel(tiny(name), { device, dtype: "f32" });
    const adapter = applyAdapter(model, { method: "lora", rank: 2, targets: ["q_proj"], ...quiet, ...options } as AdapterOptions);
    const generator = new Generator(device, 3);
    for (const parameter of adapter.parameters()) parameter.assign(generator.normal(parameter.shape).mul(0.3));
    return { model, adapter };
  }

  test.each<readonly [string, string, Partial<AdapterOptions>]>([
    [
      "ranks, alphas and rsLoRA of their own, for which there is one alpha",
      "llama",
      { targets: ["q_proj", "k_proj", "down_proj"], rslora: true, rankPattern: { k_proj: 5 }, alphaPattern: { down_proj: 3 } },
    ],
    ["the embedding", "llama", { targets: ["embed_tokens", "v_proj"], rankPattern: { embed_tokens: 3 } }],
    ["the head", "llama", { targets: ["lm_head"] }],
    ["weights by their names", "llama", { targets: [], targetParameters: ["q_proj.weight"] }],
  ])("with %s adds what merging adds", async (_, name, options) => {
    const { model, adapter } = await trained(name, options);
    const files = memoryFiles();
    await saveGgufAdapter(model, plainPairs(adapter, "GGUF"), "a.gguf", { files, name: "a" });
    const file = await opened(files, "a.gguf");
    expect(
      Object.fromEntries(["general.type", "general.architecture", "adapter.type"].map((key) => [key, file.metadata.get(key)])),
    ).toEqual({
      "general.type": "adapter",
      "general.architecture": "llama",
      "adapter.type": "lora",
    });
    const expected = await changedBy(model, adapter);
    expect(file.entries.size).toBe(2 * expected.size);
    for (const [tensor, change] of expected) {
      const found = await addedBy(file, tensor);
      for (const [i, value] of change.entries()) expect(Math.abs(value - (found[i] ?? 0))).toBeLessThan(1e-6);
    }
    model.dispose();
  });

  test.each<readonly [string, string, Partial<AdapterOptions>, RegExp]>([
    ["DoRA", "llama", { method: "dora" }, /self_attn\.q_proj: there is no DoRA in llama\.cpp\. Merge the adapter into its base/],
    [
      "an embedding that is the head",
      "llama-tied",
      { targets: ["embed_tokens"] },
      /model\.embed_tokens: it shares its weight with lm_head/,
    ],
    ["a head that is the embedding", "llama-tied", { targets: ["lm_head"] }, /lm_head: it shares its weight with model\.embed_tokens/],
    [
      "(IA)³",
      "llama",
      { method: "ia3", feedforward: [] } as Partial<AdapterOptions>,
      /this adapter is of method "ia3"\. Merge it into its base/,
    ],
    ["virtual tokens", "llama", { method: "prompt", virtualTokens: 2 } as Partial<AdapterOptions>, /this adapter is of method "prompt"/],
    ["whole modules", "llama", { modulesToSave: ["lm_head"] }, /the adapter has more: lm_head\.weight/],
    ["rows of tokens", "llama", { trainableTokens: [1] }, /the adapter has more: .*trainable_tokens_delta/],
    ["biases", "llama", { loraBias: true }, /the adapter has more: .*lora_B\.bias/],
  ])("with %s is refused with the way that works, and nothing is written", async (_, name, options, says) => {
    const device = await testDevice();
    const { model } = await loadModel(tiny(name), { device, dtype: "f32" });
    const isPlain = !options.method || options.method === "dora";
    const adapter = applyAdapter(model, {
      method: "lora",
      ...(isPlain && { rank: 2 }),
      ...(options.method !== "prompt" && { targets: ["q_proj"] }),
      ...quiet,
      ...options,
    } as AdapterOptions);
    const files = memoryFiles();
    const write = async (): Promise<void> => saveGgufAdapter(model, plainPairs(adapter, "GGUF"), "a.gguf", { files, name: "a" });
    await expect(write()).rejects.toThrow(says);
    expect(files.files.size).toBe(0);
    model.dispose();
  });
});
