import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { type CausalLM, initModel, loadModel, modelOutline, saveModel } from "@lowrank/models";
import { CheckpointError, device, joined, memoryFiles, nodeFiles, type Tensor, tensor, writeSafetensors } from "@lowrank/tensor";
import { sharedDir, TestHub } from "test-support";
import { describe, expect, onTestFinished, test, vi } from "vitest";

const dev = await device("cpu");

const llama = {
  model_type: "llama",
  architectures: ["LlamaForCausalLM"],
  vocab_size: 11,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  max_position_embeddings: 32,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: true,
};
const gpt2 = { model_type: "gpt2", vocab_size: 11, n_embd: 8, n_layer: 2, n_head: 2, n_positions: 16 };

const ids = tensor([[1, 2, 3, 4]], { device: dev, dtype: "i32" });
const logitsOf = async (model: CausalLM): Promise<number[]> => [...(await model.forward(ids).data())];
const weightsOf = async (config: Readonly<Record<string, unknown>>): Promise<Map<string, Tensor>> =>
  (await initModel(config, { device: dev, seed: 1 })).namedParameters();
const fileOf = (tensors: ReadonlyMap<string, Tensor>): Promise<Uint8Array> => joined(writeSafetensors(tensors, { format: "pt" }));

type Json = Readonly<Record<string, unknown>>;
type Change = (weights: Map<string, Tensor>) => void;

/** A folder that is gone after the test. */
function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), "lowrank-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** A folder "m" in memory with the given config and weights. */
async function folderOf(
  config: unknown,
  change: Change = () => undefined,
  base: Json = llama,
): Promise<Record<string, Uint8Array | string>> {
  const weights = new Map(await weightsOf(base));
  change(weights);
  return { "m/config.json": typeof config === "string" ? config : JSON.stringify(config), "m/model.safetensors": await fileOf(weights) };
}

async function failure(files: Record<string, Uint8Array | string>): Promise<Error> {
  const result = await loadModel("m", { device: dev, files: memoryFiles(files) }).then(
    () => new Error("it loaded"),
    (error: unknown) => error as Error,
  );
  expect(result, String(result)).toBeInstanceOf(CheckpointError);
  return result;
}

const without = (field: string): Json => Object.fromEntries(Object.entries(llama).filter(([name]) => name !== field));

const badConfigs: readonly (readonly [name: string, config: unknown, says: RegExp])[] = [
  ["no JSON", "{oops", /config\.json: this is no valid JSON/],
  ["a list", "[]", /config\.json: this is JSON, but not an object/],
  ["more layers than there are tensors", { ...llama, num_hidden_layers: 1e9 }, /it asks for 1000000000 layers, and there are \d+ tensors/],
  ["an object with a toString of its own", { ...llama, hidden_size: { toString: 1 } }, /"hidden_size" is \{"toString":1\}, not a positive/],
  ["a model_type that is such an object", { model_type: { toString: 1 } }, /\{"toString":1\} is not supported/],
  [
    "architectures of such objects",
    { model_type: "bert", architectures: [{ toString: 1 }] },
    /"bert" \/ \{"toString":1\} is not supported/,
  ],
  ["a __proto__", `{"__proto__": {"vocab_size": 3}, "model_type": "llama"}`, /"vocab_size" is missing/],
  ["more levels than a file has", `{"model_type": ${"[".repeat(5000)}${"]".repeat(5000)}}`, /this is JSON of more than 100 levels/],
  ["an end token that is a text", { ...llama, eos_token_id: "2" }, /"eos_token_id" is "2", not a whole number/],
  [
    "a factor that is a text",
    { ...llama, rope_scaling: { type: "linear", factor: "2" } },
    /"rope_scaling\.factor" is "2", not a number above 0/,
  ],
  ["no model_type", without("model_type"), /"model_type" is missing.*gpt2 \(GPT2LMHeadModel\), .*llama \(LlamaForCausalLM\)/],
  [
    "an unsupported architecture",
    { model_type: "bert", architectures: ["BertForMaskedLM"] },
    /"bert" \/ BertForMaskedLM is not supported.*llama/,
  ],
  ["a model_type named like an Object property", { model_type: "constructor" }, /"constructor" is not supported/],
  [
    "two missing fields",
    { ...without("hidden_size"), num_hidden_layers: undefined },
    /"hidden_size" is missing.*"num_hidden_layers" is missing/,
  ],
  ["a count that is a string", { ...llama, vocab_size: "11" }, /"vocab_size" is "11", not a positive integer/],
  ["a negative count", { ...llama, num_hidden_layers: -1 }, /"num_hidden_layers" is -1/],
  ["heads that do not divide", { ...llama, num_attention_heads: 3 }, /not a multiple/],
  [
    "key heads that do not divide",
    { ...llama, num_key_value_heads: 4 },
    /"num_attention_heads" 2 is not a multiple of "num_key_value_heads" 4/,
  ],
  ["an unknown activation", { ...llama, hidden_act: "swiglu" }, /"hidden_act" is "swiglu", not one of gelu/],
  [
    "an unsupported rope type",
    { ...llama, rope_scaling: { rope_type: "spiral", factor: 4 } },
    /type "spiral", supported are default, linear,/,
  ],
  ["rope scaling without factor", { ...llama, rope_scaling: { type: "linear" } }, /"rope_scaling\.factor" is missing/],
  ["GPT-2 with cross-attention", { ...gpt2, add_cross_attention: true }, /add_cross_attention/],
];

describe("a wrong config.json is refused with the fields that are wrong", () => {
  test.each(badConfigs)("%s", async (_name, config, says) => {
    expect((await failure(await folderOf(config))).message).toMatch(says);
  });
});

const badWeights: readonly (readonly [name: string, change: Change, says: RegExp])[] = [
  ["a missing tensor", (w) => void w.delete("model.layers.1.mlp.up_proj.weight"), /missing: model\.layers\.1\.mlp\.up_proj\.weight/],
  [
    "an unexpected tensor",
    (w) => void w.set("model.layers.2.mlp.up_proj.weight", tensor([1], { device: dev })),
    /unexpected: model\.layers\.2/,
  ],
  [
    "another shape",
    (w) => void w.set("model.norm.weight", tensor([1, 2], { device: dev })),
    /"model\.norm\.weight" has the shape \[2\], config\.json asks for \[8\]/,
  ],
  [
    "integers where floats belong",
    (w) => void w.set("model.norm.weight", tensor(new Int32Array(8), { device: dev, dtype: "i32" })),
    /"model\.norm\.weight" is I32, not a floating-point tensor/,
  ],
  [
    "a tensor with and without prefix",
    (w) => void w.set("norm.weight", tensor(new Float32Array(8), { device: dev })),
    /"norm\.weight" is there twice, and \S+model\.safetensors has other contents than \S+model\.safetensors/,
  ],
];

describe("weights that do not fit config.json are listed", () => {
  test.each(badWeights)("%s", async (_name, change, says) => {
    expect((await failure(await folderOf(llama, change))).message).toMatch(says);
  });
});

describe("a folder that is no checkpoint says what it holds", () => {
  test("no such folder", async () => {
    expect((await failure({})).message).toMatch(/m\/config\.json is missing\. There is no such folder/);
    await expect(loadModel("/nowhere/at/all", { device: dev })).rejects.toThrow(/nowhere.*no such folder/);
  });
  test("a folder without config", async () => {
    expect((await failure({ "m/readme.txt": "x" })).message).toMatch(/The folder holds readme\.txt/);
  });
  test("a folder with pickles only", async () => {
    const message = (await failure({ "m/config.json": JSON.stringify(llama), "m/pytorch_model.bin": "x" })).message;
    expect(message).toMatch(/pytorch_model\.bin can run code when unpickled.*safe_serialization/);
  });
  test("a pickle under the name model.safetensors", async () => {
    const pickle = new Uint8Array([0x80, 2, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9]);
    expect((await failure({ "m/config.json": JSON.stringify(llama), "m/model.safetensors": pickle })).message).toMatch(/Python pickle/);
  });
  test("truncated weights", async () => {
    const files = await folderOf(llama);
    const whole = files["m/model.safetensors"] as Uint8Array;
    for (const length of [0, 7, 100, whole.byteLength - 1]) {
      await failure({ ...files, "m/model.safetensors": whole.slice(0, length) });
    }
  });
  test("a damaged tokenizer", async () => {
    const files = await folderOf(llama);
    expect((await failure({ ...files, "m/tokenizer.json": "{}" })).message).toMatch(/tokenizer\.json: "model" is missing \(an object\)/);
  });
});

describe("layouts that the hub has", () => {
  test("shards with an index", async () => {
    const weights = [...(await weightsOf(llama))];
    const [a, b] = [new Map(weights.slice(0, 5)), new Map(weights.slice(5))];
    const map = Object.fromEntries([
      ...[...a.keys()].map((name) => [name, "a.safetensors"]),
      ...[...b.keys()].map((name) => [name, "b.safetensors"]),
    ]);
    const files = {
      "m/config.json": JSON.stringify(llama),
      "m/model.safetensors.index.json": JSON.stringify({ metadata: {}, weight_map: map }),
      "m/a.safetensors": await fileOf(a),
      "m/b.safetensors": await fileOf(b),
    };
    const { model, tokenizer } = await loadModel("m", { device: dev, files: memoryFiles(files) });
    expect(tokenizer).toBeNull();
    expect(await logitsOf(model)).toEqual(await logitsOf(await initModel(llama, { device: dev, seed: 1 })));
    const { "m/b.safetensors": _, ...incomplete } = files;
    expect((await failure(incomplete)).message).toMatch(/b\.safetensors is missing, but m\/model\.safetensors\.index\.json names it/);
    const lying = { ...files, "m/a.safetensors": files["m/b.safetensors"] };
    expect((await failure(lying)).message).toMatch(/a\.safetensors: .*says that it holds/);
    const outside = { ...files, "m/model.safetensors.index.json": JSON.stringify({ weight_map: { x: "../../secret" } }) };
    expect((await failure(outside)).message).toMatch(/"weight_map" does not map/);
  });

  test.each([
    ["gpt2", gpt2, "transformer."],
    ["llama", llama, "model."],
  ] as const)("%s names without the first part, with old buffers and a tied head", async (_name, config, prefix) => {
    const weights = await weightsOf(config);
    const bare = new Map([...weights].map(([name, value]) => [name.startsWith(prefix) ? name.slice(prefix.length) : name, value]));
    const embedding = [...weights.values()][0] as Tensor;
    if (prefix === "transformer.") {
      bare.set("h.0.attn.bias", tensor([1], { device: dev, dtype: "u8" }));
      bare.set("h.0.attn.masked_bias", tensor(-1e4, { device: dev }));
    } else bare.set("layers.0.self_attn.rotary_emb.inv_freq", tensor([1], { device: dev }));
    bare.set("lm_head.weight", embedding);
    const files = memoryFiles({ "m/config.json": JSON.stringify(config), "m/model.safetensors": await fileOf(bare) });
    const { model } = await loadModel("m", { device: dev, files });
    expect([...model.namedParameters().keys()]).toEqual([...weights.keys()]);
    expect(await logitsOf(model)).toEqual(await logitsOf(await initModel(config, { device: dev, seed: 1 })));
  });

  test("half-precision weights keep their dtype unless f32 is asked for", async () => {
    const half = new Map([...(await weightsOf(llama))].map(([name, value]) => [name, value.cast("bf16")]));
    const files = memoryFiles({ "m/config.json": JSON.stringify(llama), "m/model.safetensors": await fileOf(half) });
    const kept = (await loadModel("m", { device: dev, files })).model;
    const wide = (await loadModel("m", { device: dev, files, dtype: "f32" })).model;
    expect(new Set([...kept.parameters()].map(({ dtype }) => dtype))).toEqual(new Set(["bf16"]));
    expect(new Set([...wide.parameters()].map(({ dtype }) => dtype))).toEqual(new Set(["f32"]));
    expect(await logitsOf(kept)).toEqual(await logitsOf(wide));
  });
});

describe("what is saved is loaded again", () => {
  test.each([
    ["llama", llama],
    ["gpt2", gpt2],
    ["llama with its own head and biases", { ...llama, tie_word_embeddings: false, attention_bias: true, mlp_bias: true, head_dim: 6 }],
  ] as const)("%s", async (_name, config) => {
    const folder = join(temporary(), "out");
    const model = await initModel(config, { device: dev, seed: 2 });
    await saveModel(model, folder);
    expect(readdirSync(folder)).toEqual(["config.json", "model.safetensors"]);
    const again = await loadModel(folder, { device: dev });
    expect(await logitsOf(again.model)).toEqual(await logitsOf(model));
    expect(JSON.parse(readFileSync(join(folder, "config.json"), "utf8"))).toMatchObject({ ...config, dtype: "float32" });
  });

  test("in each weight's dtype of the folder that it came from, or in one that is asked for, whatever it is computed in", async () => {
    const [source, folder] = [temporary(), temporary()];
    const made = await initModel(llama, { device: dev, seed: 2 });
    const names = [...made.namedParameters().keys()];
    // As converters leave it: matrices in half precision, norms in single.
    const isNorm = (name: string): boolean => name.includes("norm");
    const halved = [...made.namedParameters()].map(([name, t]) => [name, isNorm(name) ? t : t.cast("bf16")] as const);
    await saveModel(made, source, { tensors: new Map(halved) });
    const { model } = await loadModel(source, { device: dev, dtype: "f32" });
    const dtypesIn = async (path: string): Promise<string[]> => {
      const again = (await loadModel(path, { device: dev })).model.namedParameters();
      return names.map((name) => again.get(name)?.dtype ?? name);
    };
    await saveModel(model, folder);
    expect(new Set(await dtypesIn(folder))).toEqual(new Set(["f32"]));
    await saveModel(model, folder, { dtype: "as-stored" });
    expect(await dtypesIn(folder)).toEqual(names.map((name) => (isNorm(name) ? "f32" : "bf16")));
    expect(JSON.parse(readFileSync(join(folder, "config.json"), "utf8"))).toMatchObject({ dtype: "bfloat16" });
    expect(readFileSync(join(folder, "model.safetensors")).equals(readFileSync(join(source, "model.safetensors")))).toBe(true);
    await saveModel(model, folder, { dtype: "f16" });
    expect(new Set(await dtypesIn(folder))).toEqual(new Set(["f16"]));
    await expect(saveModel(model, folder, { dtype: "u8" as "f16" })).rejects.toThrow(/saveModel: weights cannot be stored as "u8"/);
  });

  test.skipIf(sharedDir("models") === null)(
    "with the tokenizer's files, byte for byte, and over the folder that it came from",
    async () => {
      const source = sharedDir("models", "stories260K") as string;
      const folder = temporary();
      const { model } = await loadModel(source, { device: dev });
      await saveModel(model, folder);
      for (const name of ["tokenizer.json", "tokenizer_config.json", "model.safetensors"]) {
        expect(readFileSync(join(folder, name)).equals(readFileSync(join(source, name))), name).toBe(true);
      }
      const again = await loadModel(folder, { device: dev });
      await saveModel(again.model, folder);
      expect(readFileSync(join(folder, "tokenizer.json")).equals(readFileSync(join(source, "tokenizer.json")))).toBe(true);
    },
  );
});

describe("a hub id", () => {
  test("is fetched once into the cache and found there afterwards", async () => {
    const hub = await TestHub.start();
    onTestFinished(() => hub.stop());
    hub.push("org/tiny", { "config.json": JSON.stringify(llama), "model.safetensors": await fileOf(await weightsOf(llama)) });
    const at = { endpoint: hub.endpoint, cache: temporary(), retryMs: 1 };
    const { model } = await loadModel("org/tiny", { device: dev, hub: at });
    const count = hub.asked.length;
    const again = await loadModel("org/tiny", { device: dev, hub: at });
    expect(hub.asked.length).toBe(count);
    expect(await logitsOf(again.model)).toEqual(await logitsOf(model));
    hub.push("org/none", { "README.md": "no model" });
    await expect(loadModel("org/none", { device: dev, hub: at })).rejects.toThrow(
      /org\/none: it is no folder, and the hub has no config\.json/,
    );
    await hub.stop();
    await expect(loadModel("org/other", { device: dev, hub: at })).rejects.toThrow(/the hub cannot be reached.*Give a local folder/);
  });

  test.each([
    [{ HF_HUB_CACHE: "/a", HF_HOME: "/b", XDG_CACHE_HOME: "/c" }, "/a"],
    [{ HF_HUB_CACHE: "", HF_HOME: "/b", XDG_CACHE_HOME: "/c" }, "/b/hub"],
    [{ HF_HUB_CACHE: "", HF_HOME: "", XDG_CACHE_HOME: "/c" }, "/c/huggingface/hub"],
    [{ HF_HUB_CACHE: "", HF_HOME: "", XDG_CACHE_HOME: "" }, join(homedir(), ".cache", "huggingface", "hub")],
  ])("%j: the cache is %s", async (environment, cache) => {
    for (const [name, value] of Object.entries({ ...environment, HF_HUB_OFFLINE: "1" })) vi.stubEnv(name, value);
    try {
      await expect(loadModel("org/none", { device: dev })).rejects.toThrow(`not in the cache ${cache} while`);
    } finally {
      vi.unstubAllEnvs();
    }
  });

  test("cannot leave the cache", async () => {
    await expect(loadModel("../x", { device: dev })).rejects.toThrow(/there is no such folder/);
    expect(await nodeFiles.open("/nowhere/x")).toBeNull();
  });
});

describe("sizes without tensors beside them", () => {
  test.each([
    ["layers", { ...llama, num_hidden_layers: 1e9 }, /it asks for 1000000000 layers, which no model has/],
    ["GPT-2's layers", { ...gpt2, n_layer: 1e9 }, /it asks for 1000000000 layers/],
    ["a width", { ...llama, hidden_size: 2 ** 40, head_dim: 2 }, /it asks for model\.embed_tokens\.weight of 11 x 1099511627776 numbers/],
    ["a head", { ...llama, head_dim: 2 ** 31 }, /it asks for model\.layers\.0\.self_attn\.q_proj\.weight of 4294967296 x 8 numbers/],
    ["the whole", { ...llama, vocab_size: 2 ** 24, hidden_size: 2 ** 23 }, /it asks for [\d.e+]+ parameters, which no model has/],
  ])("%s beyond every model's are refused before anything is made of them", async (_, config, says) => {
    expect(() => modelOutline(config, { device: dev })).toThrow(says);
    await expect(initModel(config, { device: dev })).rejects.toThrow(CheckpointError);
  });
});

describe("what files beside the weights say is checked before it is used", () => {
  const json = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));
  const tokenizer = (model: Readonly<Record<string, unknown>>, more: Json = {}): Json => ({
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    model: { type: "BPE", vocab: { a: 0 }, merges: [], ...model },
    ...more,
  });
  const split = (Regex: string): Json => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false });
  test.each<readonly [name: string, file: string, content: unknown, says: RegExp]>([
    [
      "a token beyond any memory",
      "tokenizer.json",
      tokenizer({ vocab: { a: 2 ** 31 } }),
      /a token has the number 2147483648, and there are 1 tokens/,
    ],
    ["an added token beyond it", "tokenizer.json", tokenizer({}, { added_tokens: [{ id: 2 ** 31, content: "b" }] }), /number 2147483648/],
    ["half a token", "tokenizer.json", tokenizer({ vocab: { a: 0.5 } }), /"model\.vocab" is .*not an object of tokens and their numbers/],
    ["a vocabulary that is a list", "tokenizer.json", tokenizer({ vocab: ["a"] }), /"model\.vocab" is \["a"\], not an object of tokens/],
    ["merges of one text", "tokenizer.json", tokenizer({ merges: ["ab"] }), /"model\.merges" is \["ab"\], not a list of pairs/],
    [
      "a model of another kind",
      "tokenizer.json",
      tokenizer({ type: "toString" }),
      /"model\.type" is "toString", supported are BPE, WordPiece, Unigram/,
    ],
    [
      "an added token without text",
      "tokenizer.json",
      tokenizer({}, { added_tokens: [{ id: 1 }] }),
      /"added_tokens\.0\.content" is missing/,
    ],
    [
      "an unknown token that is none",
      "tokenizer.json",
      tokenizer({ type: "Unigram", vocab: [["a", 0]], unk_id: 7 }),
      /"model\.unk_id" 7 is no token/,
    ],
    [
      "a split without end",
      "tokenizer.json",
      tokenizer({}, { pre_tokenizer: split("(a+)+$") }),
      /the expression "\(a\+\)\+\$" may take time without end/,
    ],
    [
      "a pattern that is none",
      "tokenizer.json",
      tokenizer({}, { pre_tokenizer: { ...split("a"), pattern: {} } }),
      /"pattern" is \{\}, not a String or a Regex/,
    ],
    [
      "a space of many letters",
      "tokenizer.json",
      tokenizer({}, { pre_tokenizer: { type: "Metaspace", replacement: "x".repeat(200_000) } }),
      /"replacement" is .*, of 200000 characters/,
    ],
    [
      "a normalizer that is a text",
      "tokenizer.json",
      tokenizer({}, { normalizer: "NFC" }),
      /"normalizer" is "NFC", not an object with a type/,
    ],
    [
      "a special token that is a number",
      "tokenizer_config.json",
      { bos_token: 1 },
      /tokenizer_config\.json: "bos_token" is 1, not a text or an object/,
    ],
    [
      "a template that is a number",
      "tokenizer_config.json",
      { chat_template: 1 },
      /"chat_template" is 1, not a text or a list of named ones/,
    ],
    [
      "an end token that is an object",
      "generation_config.json",
      { eos_token_id: { toString: 1 } },
      /generation_config\.json: "eos_token_id" is/,
    ],
    ["a generation_config that is no JSON", "generation_config.json", "{", /generation_config\.json: this is no valid JSON/],
  ])("%s", async (_, name, content, says) => {
    const beside: Record<string, string> = { "m/tokenizer.json": json(tokenizer({})), [`m/${name}`]: json(content) };
    expect((await failure({ ...(await folderOf(llama)), ...beside })).message).toMatch(says);
  });

  test("an address of the hub that is none says so", async () => {
    vi.stubEnv("HF_ENDPOINT", "not a url");
    onTestFinished(() => void vi.unstubAllEnvs());
    const cache = temporary();
    await expect(loadModel("org/name", { device: dev, hub: { cache } })).rejects.toThrow(
      expect.objectContaining({
        name: "CheckpointError",
        message: expect.stringMatching(/the hub's address is "not a url", which is none\. Set HF_ENDPOINT/),
      }),
    );
  });
});
