// Models of GGUF files as a user has them: loaded, saved, refused.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { generate, initModel, type LoadedModel, loadModel, readConfig, saveModel, withGguf } from "@lowrank/models";
import {
  blockTypes,
  bytesSource,
  CheckpointError,
  type Device,
  type FileSystem,
  ggufTypes,
  memoryFiles,
  quantizeBlocks,
  readSafetensors,
  tensor,
} from "@lowrank/tensor";
import { sharedDir, testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";
import { type GgufParts, ggufBytes } from "../scripts/fuzz/gguf.mjs";
import { contentOf, type GgufContent } from "./gguf.js";

const config = {
  model_type: "llama",
  vocab_size: 32,
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
  rope_theta: 10000,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: false,
  bos_token_id: 1,
  eos_token_id: 2,
};
const letters = [..."abcdefghijklmnopqrstuvwxyz"];
const tokens = ["<unk>", "<s>", "</s>", "▁", ...letters, "ab", "▁c"];

let dev: Device;
let base: LoadedModel["model"];
let content: GgufContent;
beforeAll(async () => {
  dev = await testDevice();
  base = await initModel(config, { device: dev, seed: 3 });
  content = await contentOf(base);
});

type Tensors = NonNullable<GgufParts["tensors"]>;
type Metadata = NonNullable<GgufParts["metadata"]>;
const typeIds = new Map([...ggufTypes].map(([id, { name }]) => [name, id]));

/** The model's tensors, each as `typeOf` says by its name and shape, F32 for what cannot be. */
function tensorsOf(typeOf: (name: string) => string = () => "F32"): Tensors {
  return [...content.tensors].map(([name, { shape, values }]) => {
    const type = shape.length === 2 ? typeOf(name) : "F32";
    const blocks = blockTypes.get(type);
    const bytes = blocks ? quantizeBlocks(blocks, values) : new Uint8Array(values.slice().buffer);
    return { name, type: blocks ? (typeIds.get(type) ?? 0) : 0, shape, bytes };
  });
}

const kinds = { u32: "u32", f32: "f32", bool: "bool", string: "text" } as const;

function metadataOf(changes: Readonly<Record<string, Metadata[number][1] | null>> = {}): Metadata {
  const own: Metadata = [...content.metadata].map(
    ([key, { type, value }]) => [key, { kind: kinds[type as keyof typeof kinds], value }] as const,
  );
  const vocabulary: Metadata = [
    ["tokenizer.ggml.model", { kind: "text", value: "llama" }],
    ["tokenizer.ggml.tokens", { kind: "list", of: "text", value: tokens }],
    ["tokenizer.ggml.scores", { kind: "list", of: "f32", value: tokens.map((_, i) => -i) }],
    ["tokenizer.ggml.token_type", { kind: "list", of: "i32", value: tokens.map((_, i) => [2, 3, 3][i] ?? 1) }],
    ["tokenizer.ggml.bos_token_id", { kind: "u32", value: 1 }],
    ["tokenizer.ggml.eos_token_id", { kind: "u32", value: 2 }],
    ["tokenizer.chat_template", { kind: "text", value: "{{ messages[0].content }}" }],
  ];
  const all = new Map([...own, ...vocabulary]);
  for (const [key, value] of Object.entries(changes)) {
    if (value) all.set(key, value);
    else all.delete(key);
  }
  return [...all];
}

const opened = (bytes: Uint8Array, more: Readonly<Record<string, string | Uint8Array>> = {}, options: { dtype?: "f32" | "bf16" } = {}) =>
  loadModel("m/x.gguf", { device: dev, files: memoryFiles({ "m/x.gguf": bytes, ...more }), ...options });

const ids = [[1, 5, 9, 4, 30, 31]];
async function logitsOf(model: LoadedModel["model"]): Promise<Float32Array> {
  return Float32Array.from(await model.forward(tensor(ids, { dtype: "i32", device: dev })).data());
}
const farthest = (a: Float32Array, b: Float32Array): number =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] ?? NaN))), 0);

test("a file of f32 is the model that it was made of, with its tokenizer, template and end tokens", async () => {
  const { model, tokenizer, config: read, warnings, hashes } = await opened(ggufBytes({ metadata: metadataOf(), tensors: tensorsOf() }));
  expect(farthest(await logitsOf(model), await logitsOf(base))).toBeLessThan(1e-5); // frequencies in f32
  expect({ ...read, rope_theta: 10000 }).toMatchObject(config);
  expect([tokenizer?.encode("abc"), tokenizer?.eosTokenId, model.stopTokens, warnings]).toEqual([[1, 3, 30, 6], 2, [2], []]);
  expect(tokenizer?.applyChatTemplate([{ role: "user", content: "ab" }])).toBe("ab");
  const again = await opened(ggufBytes({ metadata: metadataOf(), tensors: tensorsOf() }));
  expect(again.hashes.model).toBe(hashes.model);
  const other = await opened(
    ggufBytes({ metadata: metadataOf(), tensors: tensorsOf((name) => (name === "blk.1.ffn_up.weight" ? "Q8_0" : "F32")) }),
  );
  expect(other.hashes.model).not.toBe(hashes.model);
});

test("layers behind the model's, which only foretell tokens, are left out", async () => {
  const further = { name: "blk.2.nextn.eh_proj.weight", type: 0, shape: [1], bytes: new Uint8Array(4) };
  const { model } = await opened(ggufBytes({ metadata: metadataOf(), tensors: [...tensorsOf(), further] }));
  expect(model.blocks).toHaveLength(2);
  expect(farthest(await logitsOf(model), await logitsOf(base))).toBeLessThan(1e-5); // frequencies in f32
});

test("three files are one model, and a part that is not there is named", async () => {
  const all = tensorsOf((name) => (name.includes("ffn") ? "Q4_0" : "Q8_0"));
  const split = (number: number): Metadata => [
    ["split.no", { kind: "u16", value: number }],
    ["split.count", { kind: "u16", value: 3 }],
    ["split.tensors.count", { kind: "i32", value: all.length }],
  ];
  const part = (number: number): string => `m/x-0000${number + 1}-of-00003.gguf`;
  const third = Math.ceil(all.length / 3);
  const bytes = [0, 1, 2].map((i) =>
    ggufBytes({ metadata: [...(i === 0 ? metadataOf() : []), ...split(i)], tensors: all.slice(i * third, (i + 1) * third) }),
  );
  const files = memoryFiles(Object.fromEntries(bytes.map((each, i) => [part(i), each])));
  const { model } = await loadModel(part(0), { device: dev, files });
  const { model: whole } = await opened(ggufBytes({ metadata: metadataOf(), tensors: all }));
  expect(await logitsOf(model)).toEqual(await logitsOf(whole));
  files.files.delete(part(1));
  await expect(loadModel(part(0), { device: dev, files })).rejects.toThrow(
    /"x-00002-of-00003\.gguf", another part of the model, is not beside it/,
  );
  await expect(loadModel(part(2), { device: dev, files })).rejects.toThrow(/a later part of a model in 3 files/);
});

test("matrices stay in their blocks, rows moved; saved, they are bf16 in a folder that loads", async () => {
  const { model } = await opened(ggufBytes({ metadata: metadataOf(), tensors: tensorsOf(() => "Q8_0") }));
  const parameters = model.namedParameters();
  const packed = [...parameters].filter(([, parameter]) => parameter.packing?.type === "Q8_0").map(([name]) => name);
  expect(packed.length).toBe(2 + 7 * config.num_hidden_layers);
  const logits = await logitsOf(model);
  expect(farthest(logits, await logitsOf(base))).toBeLessThan(0.02); // codes of 8 bits
  const saved = memoryFiles();
  await saveModel(model, "out", { files: saved });
  expect([...saved.files.keys()].sort()).toEqual(
    ["chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"].map(
      (name) => `out/${name}`,
    ),
  );
  const again = await loadModel("out", { device: dev, files: saved });
  expect([...again.model.namedParameters().values()].map(({ dtype }) => dtype)).toContain("bf16");
  expect(farthest(await logitsOf(again.model), logits)).toBeLessThan(0.02); // rounded to 8 bits
  expect([again.tokenizer?.encode("abc"), again.model.stopTokens]).toEqual([[1, 3, 30, 6], [2]]);
  expect(again.tokenizer?.applyChatTemplate([{ role: "user", content: "ab" }])).toBe("ab");
});

test("asked for a dtype, all weights have it, and the blocks' numbers", async () => {
  const bytes = ggufBytes({ metadata: metadataOf(), tensors: tensorsOf(() => "Q4_0") });
  const { model: blocks } = await opened(bytes);
  const { model } = await opened(bytes, {}, { dtype: "f32" });
  expect([...model.namedParameters().values()].every(({ dtype, packing }) => dtype === "f32" && !packing)).toBe(true);
  expect(farthest(await logitsOf(model), await logitsOf(blocks))).toBeLessThan(1e-5); // another order of sums
});

test("types of blocks that nothing computes with are kept as bf16, with a word", async () => {
  // 256 numbers a block: the smaller matrices are given a width of it.
  const wide = await initModel(
    { ...config, hidden_size: 256, head_dim: 64, intermediate_size: 256, num_hidden_layers: 1 },
    { device: dev, seed: 4 },
  );
  content = await contentOf(wide);
  const tensors = tensorsOf().map((each) => {
    if (each.name !== "blk.0.ffn_down.weight") return each;
    const bytes = new Uint8Array(256 * 66).fill(0x18);
    return { ...each, type: typeIds.get("TQ2_0") ?? 0, bytes };
  });
  const { model, warnings } = await opened(ggufBytes({ metadata: metadataOf(), tensors }));
  content = await contentOf(base);
  expect(warnings).toEqual([expect.stringMatching(/m\/x\.gguf: the tensors of the types TQ2_0 are kept as bf16/)]);
  const weight = model.namedParameters().get("model.layers.0.mlp.down_proj.weight");
  expect(weight?.dtype).toBe("bf16");
  // Codes 0, 2, 1, 0 less one, each of 32, times an f16 of 0x1818.
  const d = 2 ** -9 * (1 + 0x018 / 1024);
  const row = Array.from(await (weight?.data() ?? [])).slice(0, 128);
  expect(row.filter((_, i) => i % 32 === 0).map((value) => Math.sign(value))).toEqual([-1, 1, 0, -1]);
  expect(Math.abs((row[32] ?? 0) / d - 1)).toBeLessThan(2 ** -8); // bf16
});

const changed = (name: string, change: Partial<Tensors[number]> | null) => (): Uint8Array =>
  ggufBytes({
    metadata: metadataOf(),
    tensors: tensorsOf().flatMap((each) => (each.name !== name ? [each] : change ? [{ ...each, ...change }] : [])),
  });
const withMetadata = (changes: Readonly<Record<string, Metadata[number][1] | null>>) => (): Uint8Array =>
  ggufBytes({ metadata: metadataOf(changes), tensors: tensorsOf() });
const refused: readonly (readonly [what: string, bytes: () => Uint8Array, says: RegExp])[] = [
  [
    "a tensor that lacks",
    changed("blk.1.attn_q.weight", null),
    /m\/x\.gguf: the tensors do not fit the metadata: missing: blk\.1\.attn_q\.weight/,
  ],
  [
    "one of another shape",
    changed("output.weight", { shape: [16, 64], bytes: new Uint8Array(4096) }),
    /"output\.weight" has the shape \[16, 64\], its metadata asks for \[32, 64\]/,
  ],
  [
    "one that nothing reads",
    () =>
      ggufBytes({
        metadata: metadataOf(),
        tensors: [...tensorsOf(), { name: "blk.0.extra", type: 0, shape: [1], bytes: new Uint8Array(4) }],
      }),
    /unexpected: blk\.0\.extra/,
  ],
  [
    "a type that is not read",
    changed("blk.0.attn_norm.weight", { type: 28, bytes: new Uint8Array(512) }),
    /"blk\.0\.attn_norm\.weight" is F64, which is not read/,
  ],
  [
    "a number that is not finite",
    changed("output_norm.weight", { bytes: new Uint8Array(256).fill(255) }),
    /tensor "output_norm\.weight" is NaN at \[0\]/,
  ],
  [
    "a scale that is not finite",
    changed("output.weight", { type: 8, bytes: new Uint8Array(32 * 68).fill(0x7c) }),
    /tensor "output\.weight" \[32, 64\] has a scale of Q8_0 in row 0 that is not finite/,
  ],
  [
    "another architecture",
    withMetadata({ "general.architecture": { kind: "text", value: "rwkv7" } }),
    /the architecture "rwkv7" is not supported/,
  ],
  ["more layers than tensors", withMetadata({ "llama.block_count": { kind: "u32", value: 1e9 } }), /1000000000 layers, and there are/],
  [
    "a pre-tokenizer of tomorrow",
    withMetadata({ "tokenizer.ggml.model": { kind: "text", value: "gpt2" }, "tokenizer.ggml.pre": { kind: "text", value: "x" } }),
    /the pre-tokenizer "x" is not known/,
  ],
  ["the beginning of a file", () => withMetadata({})().slice(0, 9000), /truncated|ends at byte|needs/],
];
test.each(refused)("%s is refused in a sentence", async (_, bytes, says) => {
  const failure = opened(bytes());
  await expect(failure).rejects.toThrow(CheckpointError);
  await expect(failure).rejects.toThrow(says);
});

test("no file, and a folder of GGUF files alone, are told apart", async () => {
  const files = memoryFiles({ "m/x.gguf": withMetadata({})() });
  await expect(loadModel("m/y.gguf", { device: dev, files })).rejects.toThrow(/m\/y\.gguf: there is no such file/);
  await expect(loadModel("m", { device: dev, files })).rejects.toThrow(/give a GGUF file by its own path: m\/x\.gguf/);
});

test("a tokenizer.json beside the file is in the place of one that cannot be read", async () => {
  const files = withGguf(memoryFiles({ "m/x.gguf": withMetadata({})() }));
  const source = await files.open("m/x.gguf/tokenizer.json");
  const json = JSON.stringify(source?.json);
  const bytes = withMetadata({ "tokenizer.ggml.model": { kind: "text", value: "rwkv" } })();
  await expect(opened(bytes)).rejects.toThrow(/of the model "rwkv"/);
  const { tokenizer } = await opened(bytes, { "m/tokenizer.json": json });
  expect(tokenizer?.encode("abc")).toEqual([1, 3, 30, 6]);
  const { tokenizer: none } = await opened(withMetadata({ "tokenizer.ggml.model": null })());
  expect(none).toBeNull();
});

test("the files that a GGUF file stands for", async () => {
  const files: FileSystem = withGguf(memoryFiles({ "m/x.gguf": withMetadata({})(), "m/other.json": "{}" }));
  expect(await files.list("m/x.gguf")).toEqual([
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  expect(await files.list("m")).toEqual(["other.json", "x.gguf"]);
  expect(await readConfig(files, "m/x.gguf")).toMatchObject({ model_type: "llama", hidden_size: 64, rms_norm_eps: 1e-5 });
  expect(await files.open("m/x.gguf/nothing.json")).toBeNull();
});

const shared = sharedDir("gguf");
describe.skipIf(shared === null)("../shared/gguf/llama.gguf, whose matrices are of many types", () => {
  test("has transformers' logits and greedy tokens", async () => {
    const files = memoryFiles({ "llama.gguf": new Uint8Array(readFileSync(join(shared ?? "", "llama.gguf"))) });
    const { model } = await loadModel("llama.gguf", { device: dev, files });
    const io = await readSafetensors(bytesSource(new Uint8Array(readFileSync(join(shared ?? "", "llama.safetensors"))), "io"));
    const input = await io.values("input_ids");
    const shape = io.entries.get("input_ids")?.shape ?? [];
    const logits = await model.forward(tensor(Int32Array.from(input), { shape, dtype: "i32", device: dev })).data();
    expect(farthest(Float32Array.from(logits), Float32Array.from(await io.values("logits")))).toBeLessThan(1e-4); // f32, in another order
    const [prompt, greedy] = [await io.values("prompt"), await io.values("greedy")];
    model.stopTokens = [];
    const made = await generate(model, [...prompt], { maxNewTokens: greedy.length });
    expect(made).toEqual([...greedy]);
  });
});
