// Sound files of every kind that is read: made here, taken from the model that ships with the repository, and from ../shared where that is.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { applyAdapter, saveAdapter } from "@lowrank/lora";
import { initModel, saveModel, saveState } from "@lowrank/models";
import { device, fromBytes, joined, memoryFiles, tensor, writeSafetensors } from "@lowrank/tensor";
import { root } from "../prepare.mjs";
import { everyKind, ggufBytes } from "./gguf.mjs";

/** @typedef {ReadonlyMap<string, Uint8Array>} Files By path, below the folder "m". */
/** @typedef {{ name: string, files: Files }} Sample */

const encoder = new TextEncoder();
/** @param {unknown} value */
const json = (value) => encoder.encode(JSON.stringify(value));
const shared = process.env["LOWRANK_SHARED"] ?? join(root, "..", "shared");

const llama = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  vocab_size: 40,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 4,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  rope_scaling: { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 32 },
  tie_word_embeddings: true,
  hidden_act: "silu",
  eos_token_id: [2, 3],
  bos_token_id: 1,
};
const gpt2 = {
  model_type: "gpt2",
  vocab_size: 40,
  n_embd: 8,
  n_layer: 2,
  n_head: 2,
  n_positions: 64,
  n_inner: null,
  activation_function: "gelu_new",
  tie_word_embeddings: true,
};

/** The device on which nothing is fast and everything is collected. */
export const dev = await device("reference");

/** @param {Readonly<Record<string, unknown>>} config */
async function modelFiles(config) {
  const files = memoryFiles();
  await saveModel(await initModel(config, { device: dev, seed: 1 }), "m", { files });
  return files.files;
}

/** @param {string} content @param {number} id */
const added = (content, id) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true });
const letters = [..."abcdefghijklmnopqrstuvwxyz .,"];
const special = ["<unk>", "<s>", "</s>", "<pad>"];
const vocabulary = Object.fromEntries([...special, ...letters, "ab", "he", "ll"].map((token, id) => [token, id]));

/** Tokenizers of the kinds that checkpoints have. */
const tokenizers = {
  bytes: {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: special.map(added),
    normalizer: { type: "Sequence", normalizers: [{ type: "NFC" }, { type: "Replace", pattern: { String: "``" }, content: '"' }] },
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        {
          type: "Split",
          pattern: { Regex: "'s|'t| ?\\p{L}+| ?\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+" },
          behavior: "Isolated",
          invert: false,
        },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: { type: "ByteLevel", add_prefix_space: true, trim_offsets: false, use_regex: true },
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: "<unk>",
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: vocabulary,
      merges: ["a b", ["h", "e"], "l l"],
    },
  },
  sentencePiece: {
    version: "1.0",
    added_tokens: special.map(added),
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: "▁" },
        { type: "Replace", pattern: { String: " " }, content: "▁" },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 1 } }],
      special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
    },
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    model: {
      type: "BPE",
      unk_token: "<unk>",
      fuse_unk: true,
      byte_fallback: true,
      vocab: { ...vocabulary, "▁": 36, "▁a": 37, "<0x41>": 38 },
      merges: ["▁ a", "a b"],
    },
  },
  wordPiece: {
    version: "1.0",
    added_tokens: special.map(added),
    normalizer: { type: "BertNormalizer", clean_text: true, handle_chinese_chars: true, strip_accents: null, lowercase: true },
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: null,
    decoder: { type: "WordPiece", prefix: "##", cleanup: true },
    model: {
      type: "WordPiece",
      unk_token: "<unk>",
      continuing_subword_prefix: "##",
      max_input_chars_per_word: 100,
      vocab: { ...vocabulary, "##b": 36, "##c": 37 },
    },
  },
  unigram: {
    version: "1.0",
    added_tokens: special.map(added),
    normalizer: { type: "Precompiled", precompiled_charsmap: "" },
    pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
    post_processor: null,
    decoder: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
    model: { type: "Unigram", unk_id: 0, vocab: Object.keys(vocabulary).map((token, id) => [token, -id / 2]), byte_fallback: false },
  },
};
const tokenizerConfig = {
  tokenizer_class: "PreTrainedTokenizerFast",
  bos_token: "<s>",
  eos_token: { __type: "AddedToken", content: "</s>" },
  pad_token: "<pad>",
  unk_token: "<unk>",
  model_max_length: 1e30,
  added_tokens_decoder: { 0: { content: "<unk>", special: true } },
};

const templates = [
  "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
  "{%- if messages[0]['role'] == 'system' -%}{%- set system = messages[0]['content'] | trim -%}{%- set rest = messages[1:] -%}{%- else -%}{%- set system = '' -%}{%- set rest = messages -%}{%- endif -%}{%- for message in rest -%}{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('Roles must alternate') }}{%- endif -%}{{ '<|' + message['role'] + '|>\\n' + message['content'].strip() + '\\n' }}{%- endfor -%}",
  "{% macro show(m, tag='x') %}<{{ tag }}>{{ m.content | upper }}</{{ tag }}>{% endmacro %}{% set ns = namespace(n=0) %}{% for m in messages if m.role != 'tool' %}{% set ns.n = ns.n + 1 %}{{ show(m, tag=m.role) }}{{ ', ' if not loop.last }}{% endfor %}{{ ns.n }} {{ messages | tojson(indent=2) }} {{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(' / ') }} {{ range(3) | list }} {{ strftime_now('%d %b %Y') }}",
];

/** Of every method, on layers that both families' tiny models have. */
const adapters = /** @type {const} */ ([
  { method: "lora", rank: 2, targets: ["q_proj", "v_proj"], rankPattern: { v_proj: 3 }, alphaPattern: { "layers.0.self_attn.q_proj": 4 } },
  { method: "lora", rank: 2, targets: ".*\\.(q|k)_proj", exclude: ["layers.1.self_attn.k_proj"], bias: "none", rslora: true },
  { method: "lora", rank: 2, targets: ["q_proj"], layers: [1], layersPattern: "layers", modulesToSave: ["norm"], trainableTokens: [1, 5] },
  { method: "dora", rank: 2, targets: "all-linear" },
  { method: "adalora", initRank: 3, targetRank: 2, totalSteps: 100, targets: ["q_proj"] },
  { method: "vera", rank: 4, targets: ["q_proj"] },
  { method: "loha", rank: 2, targets: ["q_proj"] },
  { method: "lokr", rank: 2, targets: ["q_proj"] },
  { method: "oft", blockSize: 4, targets: ["q_proj"] },
  { method: "ia3" },
  { method: "miss", rank: 2, targets: ["q_proj"] },
  { method: "norms" },
  { method: "bitfit", addMissing: true },
  { method: "prompt", virtualTokens: 3 },
  { method: "prefix", virtualTokens: 3 },
  { method: "ptuning", virtualTokens: 3 },
  { method: "houlsby", reductionFactor: 2 },
  { method: "pfeiffer", reductionFactor: 2 },
  { method: "parallel", bottleneckSize: 3 },
]);

/** @param {Files} model */
async function adapterSamples(model) {
  const { loadModel } = await import("@lowrank/models");
  /** @type {Sample[]} */
  const samples = [];
  for (const [i, options] of adapters.entries()) {
    const loaded = await loadModel("m", { device: dev, files: memoryFiles(Object.fromEntries(model)) });
    const files = memoryFiles();
    await saveAdapter(applyAdapter(loaded.model, { ...options, onWarning: () => {} }), "m", { files });
    samples.push({ name: `${options.method} ${i}`, files: files.files });
  }
  return samples;
}

/** Files of a folder beside the repository, where it is. @param {string[]} path @param {RegExp} wanted */
function sharedTexts(path, wanted) {
  const folder = join(shared, ...path);
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) return [];
  return readdirSync(folder)
    .filter((name) => wanted.test(name))
    .sort()
    .map((name) => ({ name, text: readFileSync(join(folder, name)) }));
}

/** @param {string} name */
const shipped = (name) => new Uint8Array(readFileSync(join(root, "examples", "base-model", "model", name)));

/** The tokenizer that rows and templates are read with. */
export const tokenizerFiles = new Map([
  ["m/tokenizer.json", json(tokenizers.wordPiece)],
  ["m/tokenizer_config.json", json({ ...tokenizerConfig, chat_template: templates[0] })],
]);

/** @typedef {import("./gguf.mjs").Value} Value */

/** Vocabularies as GGUF files have them, byte-level and SentencePiece's. @type {Readonly<Record<string, Readonly<Record<string, Value>>>>} */
const ggufVocabularies = {
  bytes: {
    "tokenizer.ggml.model": { kind: "text", value: "gpt2" },
    "tokenizer.ggml.pre": { kind: "text", value: "qwen2" },
    "tokenizer.ggml.tokens": { kind: "list", of: "text", value: [...special, ...letters, "Ġ", "ab", "he", "ll"] },
    "tokenizer.ggml.token_type": { kind: "list", of: "i32", value: [2, 3, 3, 4, ...Array(letters.length + 4).fill(1)] },
    "tokenizer.ggml.merges": { kind: "list", of: "text", value: ["a b", "h e", "l l"] },
  },
  pieces: {
    "tokenizer.ggml.model": { kind: "text", value: "llama" },
    "tokenizer.ggml.tokens": { kind: "list", of: "text", value: [...special, ...letters, "▁", "ab", "<0x41>", "  "] },
    "tokenizer.ggml.token_type": { kind: "list", of: "i32", value: [2, 3, 3, 3, ...Array(letters.length + 2).fill(1), 6, 4] },
    "tokenizer.ggml.scores": { kind: "list", of: "f32", value: Array.from({ length: letters.length + 8 }, (_, i) => -i) },
    "tokenizer.ggml.add_space_prefix": { kind: "bool", value: true },
  },
};

/** A whole model as a GGUF file, of blocks and of numbers. @param {Readonly<Record<string, Value>>} vocabulary */
function ggufModel(vocabulary) {
  /** @param {string} name @param {readonly number[]} shape @param {number} type */
  const written = (name, shape, type) => {
    const count = shape.reduce((product, size) => product * size, 1);
    // F32, F16, Q4_0 and Q8_0.
    const length = type === 0 ? 4 * count : type === 1 ? 2 * count : (count / 32) * (type === 2 ? 18 : 34);
    return { name, type, shape, bytes: Uint8Array.from({ length }, (_, i) => (i * 37) % 60) };
  };
  const layers = [0, 1].flatMap((layer) => [
    written(`blk.${layer}.attn_norm.weight`, [32], 0),
    written(`blk.${layer}.attn_q.weight`, [32, 32], 2),
    written(`blk.${layer}.attn_k.weight`, [16, 32], 8),
    written(`blk.${layer}.attn_v.weight`, [16, 32], 1),
    written(`blk.${layer}.attn_output.weight`, [32, 32], 8),
    written(`blk.${layer}.ffn_norm.weight`, [32], 0),
    written(`blk.${layer}.ffn_gate.weight`, [32, 32], 2),
    written(`blk.${layer}.ffn_up.weight`, [32, 32], 2),
    written(`blk.${layer}.ffn_down.weight`, [32, 32], 8),
  ]);
  const count = /** @type {readonly string[]} */ (vocabulary["tokenizer.ggml.tokens"]?.value ?? []).length;
  /** @param {number} value @returns {Value} */
  const u32 = (value) => ({ kind: "u32", value });
  return ggufBytes({
    metadata: Object.entries({
      "general.architecture": /** @type {Value} */ ({ kind: "text", value: "llama" }),
      "llama.block_count": u32(2),
      "llama.context_length": u32(64),
      "llama.embedding_length": u32(32),
      "llama.feed_forward_length": u32(32),
      "llama.attention.head_count": u32(4),
      "llama.attention.head_count_kv": u32(2),
      "llama.rope.freq_base": /** @type {Value} */ ({ kind: "f32", value: 10000 }),
      "llama.attention.layer_norm_rms_epsilon": /** @type {Value} */ ({ kind: "f32", value: 1e-5 }),
      "tokenizer.ggml.bos_token_id": u32(1),
      "tokenizer.ggml.eos_token_id": u32(2),
      "tokenizer.chat_template": /** @type {Value} */ ({ kind: "text", value: templates[0] }),
      ...vocabulary,
    }),
    tensors: [
      written("token_embd.weight", [count, 32], 8),
      written("rope_freqs.weight", [4], 0),
      written("output_norm.weight", [32], 0),
      ...layers,
    ].map((each) => (each.name === "rope_freqs.weight" ? { ...each, bytes: new Uint8Array(Float32Array.of(1, 1, 1, 1).buffer) } : each)),
  });
}

/** Every sound file, by what reads it. @returns {Promise<Readonly<Record<string, readonly Sample[]>>>} */
export async function corpus() {
  const [llamaFiles, gpt2Files] = [await modelFiles(llama), await modelFiles(gpt2)];
  const weights = /** @type {Uint8Array} */ (llamaFiles.get("m/model.safetensors"));
  const generation = json({ eos_token_id: [2, 3], temperature: 0.7, transformers_version: "5.0" });
  const families = existsSync(join(shared, "families"))
    ? readdirSync(join(shared, "families"))
        .sort()
        .flatMap((name) => sharedTexts(["families", name], /^config\.json$/))
    : [];
  const several = new Map(
    await Promise.all(
      /** @type {const} */ (["f32", "f16", "bf16", "i32", "u8", "bool"]).map(
        async (dtype, i) =>
          /** @type {const} */ ([
            `t${i}`,
            fromBytes(
              new Uint8Array(48),
              dtype,
              [dtype === "f32" || dtype === "i32" ? 12 : dtype === "u8" || dtype === "bool" ? 48 : 24],
              dev,
            ),
          ]),
      ),
    ),
  );
  const state = memoryFiles();
  await saveState(
    state,
    "m",
    new Map([
      ["a", tensor([1, 2, 3], { device: dev })],
      ["b", tensor([[1], [2]], { device: dev })],
    ]),
    /** @type {any} */ ({
      step: 30,
      settings: { method: "lora", steps: 100, rank: 8, lr: 0.001, seed: 0, bias: null, resume: true },
      evalLossBefore: 2.5,
      evalLoss: null,
      recentLosses: [2, 1.5, 1.25],
    }),
  );
  const index = await indexed(llamaFiles);
  const rows = [
    '{"prompt": "ab he", "completion": " ll"}\n{"prompt": "a", "completion": "b"}\n',
    '{"text": "he ab ll"}\n\n{"text": "a"}\n',
    '{"messages": [{"role": "user", "content": "he"}, {"role": "assistant", "content": "ab"}]}\n{"text": "ab"}\n',
  ];
  const metrics = [1, 2, 3, 4]
    .map((step) => JSON.stringify({ step, loss: 2 / step, learningRate: 1e-3, gradNorm: 1, tokensPerSecond: 100 }))
    .join("\n");
  return {
    safetensors: [
      { name: "every dtype", files: new Map([["m/x.safetensors", await joined(writeSafetensors(several, { format: "pt" }))]]) },
      { name: "a model", files: new Map([["m/x.safetensors", weights]]) },
    ],
    gguf: [
      { name: "every kind", files: new Map([["m/x.gguf", everyKind()]]) },
      ...sharedTexts(["gguf"], /^types\.gguf$/).map(({ name, text }) => ({ name, files: new Map([["m/x.gguf", new Uint8Array(text)]]) })),
    ],
    "gguf-model": [
      ...Object.entries(ggufVocabularies).map(([name, vocabulary]) => ({
        name,
        files: new Map([["m/model.gguf", ggufModel(vocabulary)]]),
      })),
      ...sharedTexts(["gguf"], /^llama\.gguf$/).map(({ name, text }) => ({
        name,
        files: new Map([["m/model.gguf", new Uint8Array(text)]]),
      })),
    ],
    config: [
      { name: "llama", files: new Map([...llamaFiles, ["m/generation_config.json", generation]]) },
      { name: "gpt2", files: gpt2Files },
      ...families.map(({ name, text }, i) => ({
        name: `${name} ${i}`,
        files: new Map([...llamaFiles, ["m/config.json", new Uint8Array(text)]]),
      })),
    ],
    index: [{ name: "two shards", files: index }],
    tokenizer: [
      ...Object.entries(tokenizers).map(([name, tokenizer]) => ({
        name,
        files: new Map([
          ["m/tokenizer.json", json(tokenizer)],
          ["m/tokenizer_config.json", json(tokenizerConfig)],
          ["m/special_tokens_map.json", json({ bos_token: "<s>" })],
        ]),
      })),
      {
        name: "the one that ships",
        files: new Map([
          ["m/tokenizer.json", shipped("tokenizer.json")],
          ["m/tokenizer_config.json", shipped("tokenizer_config.json")],
        ]),
      },
    ],
    template: [
      ...templates.map((text, i) => ({ name: `own ${i}`, text: encoder.encode(text) })),
      ...sharedTexts(["templates"], /\.jinja$/),
    ].map(({ name, text }) => ({ name, files: new Map([["m/chat_template.jinja", new Uint8Array(text)]]) })),
    adapter: await adapterSamples(llamaFiles),
    rows: rows.map((text, i) => ({ name: `rows ${i}`, files: new Map([["m/rows.jsonl", encoder.encode(text)]]) })),
    state: [{ name: "state", files: state.files }],
    metrics: [{ name: "metrics", files: new Map([["m/metrics.jsonl", encoder.encode(`${metrics}\n`)]]) }],
    model: [{ name: "llama", files: llamaFiles }],
  };
}

/** The same weights in two files with their index. @param {Files} files @returns {Promise<Map<string, Uint8Array>>} */
async function indexed(files) {
  const { bytesSource, readSafetensors } = await import("@lowrank/tensor");
  const whole = await readSafetensors(bytesSource(/** @type {Uint8Array} */ (files.get("m/model.safetensors"))));
  const names = [...whole.entries.keys()];
  const result = new Map([["m/config.json", /** @type {Uint8Array} */ (files.get("m/config.json"))]]);
  /** @type {Record<string, string>} */
  const weightMap = {};
  for (const [i, part] of [names.slice(0, 5), names.slice(5)].entries()) {
    const shard = `model-0000${i + 1}-of-00002.safetensors`;
    for (const name of part) weightMap[name] = shard;
    const tensors = await Promise.all(part.map(async (name) => /** @type {const} */ ([name, await whole.tensor(name, { device: dev })])));
    result.set(`m/${shard}`, await joined(writeSafetensors(new Map(tensors), { format: "pt" })));
  }
  result.set("m/model.safetensors.index.json", json({ metadata: { total_size: 1 }, weight_map: weightMap }));
  return result;
}
