import { readdirSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { checkpointOutline, initModel, loadModel, saveGguf, saveModel } from "@lowrank/models";
import { type Device, type FileSystem, memoryFiles, planningDevice, type QuantizedType, type Tensor } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

/** What a parameter takes: its dtype, or its blocks with the dtype and size of each part. */
const kept = ({ dtype, shape, packing }: Tensor): unknown => ({
  shape,
  dtype,
  ...(packing && {
    type: packing.type,
    parts: Object.entries(packing.parts).map(([name, part]) => [name, part.dtype, part.size]),
  }),
});
const keptOf = (parameters: ReadonlyMap<string, Tensor>): unknown =>
  Object.fromEntries([...parameters].map(([name, tensor]) => [name, kept(tensor)]));

/** A file system that counts what is read of weights. */
function counted(files: FileSystem): FileSystem & { readonly bytes: () => number } {
  let bytes = 0;
  return {
    ...files,
    bytes: () => bytes,
    async open(path) {
      const source = await files.open(path);
      if (!source || !/\.(safetensors|gguf)$/.test(path)) return source;
      return {
        ...source,
        read: async (offset, length, into) => {
          bytes += length;
          return source.read(offset, length, into);
        },
      };
    },
  };
}

/** Holds the outline of a checkpoint to what is loaded; gives the bytes that were read of it. */
async function expectOutlined(
  files: FileSystem,
  path: string,
  as: { dtype?: "f32" | "bf16"; quantize?: QuantizedType } = {},
): Promise<number> {
  const { device } = planningDevice(dev);
  const counting = counted(files);
  const { model: outline } = await checkpointOutline(path, { device, files: counting, ...as });
  const { model } = await loadModel(path, { device: dev, files, ...as });
  expect(keptOf(outline.namedParameters())).toEqual(keptOf(model.namedParameters()));
  model.dispose();
  return counting.bytes();
}

const goldens = new URL("./quantised/", import.meta.url);
const names = readdirSync(goldens).map((name) => name.replace(".json", ""));
describe("a checkpoint that is quantised already is outlined as it is loaded", () => {
  test.each(names)("%s", async (name) => {
    const { config, files } = JSON.parse(readFileSync(new URL(`${name}.json`, goldens), "utf8"));
    const held = Object.entries(files as Record<string, string>).map(
      ([file, text]) => [`m/${file}`, new Uint8Array(gunzipSync(Buffer.from(text, "base64")))] as const,
    );
    const all = memoryFiles(Object.fromEntries([["m/config.json", JSON.stringify(config)], ...held]));
    await expectOutlined(all, "m");
    await expectOutlined(all, "m", { dtype: "bf16" });
  });
});

const sizes = { vocab_size: 24, num_hidden_layers: 1, num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 16 };
/** Families whose tensors llama.cpp files otherwise than transformers: rows that are moved, norms and queries that are changed, experts in one stack. */
const configs = {
  llama: { ...sizes, model_type: "llama", hidden_size: 128, intermediate_size: 256, tie_word_embeddings: false },
  mixtral: { ...sizes, model_type: "mixtral", hidden_size: 64, intermediate_size: 96, num_local_experts: 2, num_experts_per_tok: 1 },
  gemma: { ...sizes, model_type: "gemma", hidden_size: 64, intermediate_size: 96, head_dim: 16 },
  gpt_neox: {
    model_type: "gpt_neox",
    vocab_size: 24,
    hidden_size: 96,
    num_hidden_layers: 1,
    num_attention_heads: 4,
    intermediate_size: 128,
    max_position_embeddings: 16,
  },
} as const;

async function savedGguf(kind: keyof typeof configs, type: Parameters<typeof saveGguf>[2]["type"], width = {}) {
  const files = memoryFiles();
  const model = await initModel({ ...configs[kind], ...width }, { device: dev });
  await saveGguf(model, "m.gguf", { files, type, name: "m" });
  model.dispose();
  return files;
}

describe("a GGUF file is outlined as it is loaded", () => {
  test.each([
    ["llama", "f16"],
    ["llama", "q8_0"],
    ["llama", "q4_k_m"],
    ["mixtral", "q4_0"],
    ["gemma", "q8_0"],
    ["gpt_neox", "q8_0"],
    ["gpt_neox", "f32"],
  ] as const)("%s in %s", async (kind, type) => {
    const files = await savedGguf(kind, type);
    await expectOutlined(files, "m.gguf");
    await expectOutlined(files, "m.gguf", { dtype: "f32" });
  });
});

test("of a dense folder nothing but the header is read, and it is outlined as it is quantised while it is loaded", async () => {
  const files = memoryFiles();
  const model = await initModel({ ...configs.llama, intermediate_size: 4096 }, { device: dev });
  await saveModel(model, "m", { files, dtype: "bf16" });
  model.dispose();
  const size = files.files.get("m/model.safetensors")?.byteLength ?? 0;
  for (const as of [{}, { dtype: "f32" }, { quantize: "nf4" }, { quantize: "q4_k" }] as const)
    expect(await expectOutlined(files, "m", as), JSON.stringify(as)).toBeLessThan(size / 100);
});

test("of a GGUF file the header alone is read, in windows of a megabyte, once for what it says and once for its tensors", async () => {
  const files = await savedGguf("llama", "f16", { intermediate_size: 8192 });
  expect(files.files.get("m.gguf")?.byteLength).toBeGreaterThan(6e6);
  expect(await expectOutlined(files, "m.gguf")).toBeLessThan(2.01 * 2 ** 20);
});
