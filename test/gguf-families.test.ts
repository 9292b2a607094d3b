// Every family's model as a GGUF file and back: the metadata and tensors of llama.cpp's converter, undone, compute what the folder's model does.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { loadModel } from "@lowrank/models";
import { type GgufEntry, type GgufValue, realize } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { describe, expect, test } from "vitest";
import { decoderOf, parametersIn } from "../packages/models/src/families/family.js";
import { ggufConfig, ggufLinks, ggufMetadata, ggufNotes } from "../packages/models/src/families/gguf-model.js";
import { readFamily } from "../packages/models/src/families/read.js";
import { families } from "../packages/models/src/families/table.js";
import { familyCases } from "./family.js";
import { configOf, contentOf, fileOf, modelOfGguf } from "./gguf.js";
import { integers, opened } from "./golden.js";

type Json = Readonly<Record<string, unknown>>;

/** Cases of which no file can say something: what the error names, and a change of the config without it. */
const refused: Readonly<Record<string, readonly [says: RegExp, change: Json]>> = {
  "own/llama-dynamic": [/positions are of the kind "dynamic"/, {}],
  "own/llama-dynamic-grows": [/positions are of the kind "dynamic"/, {}],
  "shared/llama-rope-dynamic": [/positions are of the kind "dynamic"/, {}],
  "own/cohere2": [/"attention_bias" is true/, {}],
  "own/deepseek_v3": [/"rope_interleave" is false/, { rope_interleave: true }],
  ...Object.fromEntries(
    ["own/gemma3n", "own/gemma3n_text", "shared/gemma3n"].map(
      (name) => [name, [/"altup_num_inputs" is \d, where llama.cpp takes 4/, {}]] as const,
    ),
  ),
  "own/gpt_neox": [/"hidden_act" is "gelu_new"/, { hidden_act: "gelu" }],
  "own/gpt_oss": [/the layers with a window are others than every second/, { layer_types: null, swiglu_limit: 7 }],
  "own/lfm2": [/"conv_bias" is true/, {}],
  "own/phi": [/queries and keys are normed/, {}],
  "own/qwen3_next": [/"norm_topk_prob" is false/, { norm_topk_prob: true }],
  "shared/qwen3_next": [/some layers have no experts/, {}],
  "own/starcoder2": [/"hidden_act" is "gelu"/, { hidden_act: "gelu_pytorch_tanh" }],
  "own/falcon_h1": [
    /the embeddings and the head, which are the same, have different multipliers|"mamba_norm_before_gate" is true/,
    { lm_head_multiplier: 1.3, mamba_norm_before_gate: false },
  ],
  "own/granitemoehybrid": [/a Mamba's norm is over several groups/, {}],
  "own/gemma2": [/the layers with a window are others than every second/, { layer_types: null }],
  "shared/llama-bias": [/"hidden_act" is "gelu", where llama.cpp takes "silu"/, { hidden_act: "silu" }],
  "own/llama-yarn": [/"truncate" is false/, {}],
  "own/qwen3_moe": [/"norm_topk_prob" is false/, {}],
  "own/smollm3": [
    /layers without positions are others than every fourth/,
    { no_rope_layers: null, no_rope_layer_interval: 4, use_sliding_window: false, layer_types: null },
  ],
  "shared/smollm3": [/layers without positions are others than every fourth/, { no_rope_layers: null, no_rope_layer_interval: 4 }],
};

/** True for a folder whose family, or that of its text model, llama.cpp has. */
function mapped(folder: string): boolean {
  const config = JSON.parse(readFileSync(join(folder, "model", "config.json"), "utf8")) as {
    model_type: string;
    text_config?: { model_type: string };
  };
  return Boolean(families[config.text_config?.model_type ?? config.model_type]?.gguf);
}

test("a family that llama.cpp does not have is refused by name, and so is an architecture of which there is no family", async () => {
  const read = readFamily(
    { model_type: "nanochat", vocab_size: 8, hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 1 },
    "c.json",
  );
  expect(() => ggufMetadata(read, "c.json")).toThrow(/llama\.cpp has no architecture for nanochat/);
  const facts = { name: "x.gguf", metadata: new Map([["general.architecture", "bert"]]), entries: new Map(), factors: new Map() };
  expect(() => ggufConfig(facts)).toThrow(/x\.gguf: the architecture "bert" is not supported\. Give a file of command-r, cohere2,/);
});

/** A family's config of tests, changed. */
function configIn(family: string, change: Json) {
  const file = fileURLToPath(new URL(`goldens-families/${family}/model/config.json`, import.meta.url));
  return readFamily({ ...(JSON.parse(readFileSync(file, "utf8")) as Json), ...change }, "config.json");
}

/** Gemma 3n as llama.cpp knows it. */
const gemma3n = {
  ...{ altup_num_inputs: 4, laurel_rank: 64, hidden_size_per_layer_input: 256, final_logit_softcapping: 30, altup_active_idx: 0 },
  ...{ num_hidden_layers: 4, num_kv_shared_layers: 0, intermediate_size: 8, layer_types: null, activation_sparsity_pattern: 0.95 },
  altup_correct_scale: true,
};
const bias = { attention_bias: true };
const without = /"attention_bias" is true: llama\.cpp loads no file of this family with these biases/;

test.each<readonly [family: string, change: Json, says: RegExp | null]>([
  ...[
    "cohere",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gemma4_text",
    "hunyuan_v1_dense",
    "olmo2",
    "olmo3",
    "qwen3",
    "qwen3_moe",
    "qwen3_5_text",
  ].map((family) => [family, bias, without] as const),
  ["qwen3_next", bias, without],
  ["smollm3", bias, without],
  ["smollm3", { mlp_bias: true }, /"mlp_bias" is true: llama\.cpp loads no file of this family with these biases/],
  ["ernie4_5", { use_bias: true }, /"use_bias" is true: llama\.cpp loads no file/],
  ["granitemoehybrid", { mamba_proj_bias: true }, /"mamba_proj_bias" is true: llama\.cpp loads no file/],
  ["nemotron_h", { use_bias: true }, /"use_bias" is true: llama\.cpp loads no file/],
  ["gpt_oss", { attention_bias: false }, /"attention_bias" is false: llama\.cpp loads no file of this family without these biases/],
  ["gpt_neox", { attention_bias: false }, /"attention_bias" is false: llama\.cpp loads no file of this family without these biases/],
  ["granite", { attention_bias: true, mlp_bias: true }, null],
  ["starcoder2", { hidden_act: "gelu_pytorch_tanh", use_bias: false }, /"use_bias" is false: llama\.cpp loads no file/],
  ...["cohere", "cohere2", "gemma", "gemma2"].map(
    (family) => [family, { tie_word_embeddings: false }, /The head has weights of its own: llama\.cpp loads no such file/] as const,
  ),
  ["gemma3n_text", gemma3n, null],
  [
    "gemma3n_text",
    { ...gemma3n, laurel_rank: 4 },
    /"laurel_rank" and "hidden_size_per_layer_input" are 4 and 256: llama\.cpp loads no such file/,
  ],
  ["gemma3n_text", { ...gemma3n, altup_active_idx: 1 }, /"altup_active_idx" is 1, and llama\.cpp takes the first stream/],
  ["gemma3n_text", { ...gemma3n, final_logit_softcapping: 3 }, /"final_logit_softcapping" is 3, and llama\.cpp takes 30/],
  [
    "gemma3n_text",
    { ...gemma3n, activation_sparsity_pattern: null },
    /"activation_sparsity_pattern" is not 0\.95 in the first 10 layers alone/,
  ],
  ["gemma3n_text", { ...gemma3n, num_kv_shared_layers: 2 }, /2 layers have keys and values of their own, and in llama\.cpp the first 4/],
])("what llama.cpp does with a file otherwise is told: %s with %o", (family, change, says) => {
  const told = ggufNotes(configIn(family, change), "config.json").filter((text) => /loads no|llama\.cpp (takes|the)/.test(text));
  if (says === null) expect(told.filter((text) => /bias|whatever the file says|laurel/.test(text))).toEqual([]);
  else expect(told).toContainEqual(expect.stringMatching(says));
});

test.each([
  ["falcon_h1", { mamba_conv_bias: false, mamba_norm_before_gate: false }],
  ["granitemoehybrid", { mamba_conv_bias: false }],
  ["nemotron_h", { use_conv_bias: false }],
])("convolutions without biases have zeros in a file, without which llama.cpp ends its process: %s", async (family, change) => {
  const read = configIn(family, change);
  const zeros = ggufLinks(read, new Map(), "config.json").filter(({ parameters }) => parameters.length === 0);
  const shapes = zeros.flatMap(({ tensors }) => tensors).filter(({ name }) => name.endsWith(".ssm_conv1d.bias"));
  const specs = parametersIn(read, await testDevice());
  const convolutions = [...specs].filter(([name]) => name.endsWith(".conv1d.weight"));
  expect(shapes.map(({ shape }) => shape)).toEqual(convolutions.map(([, { shape }]) => [shape[0]]));
  expect(convolutions.length).toBeGreaterThan(0);
  expect([...specs.keys()].filter((name) => name.endsWith(".conv1d.bias"))).toEqual([]);
});

test.each<readonly [family: string, change: Json, silent: readonly string[], read: Json]>([
  ["gemma2", { sliding_window: 7, layer_types: null }, ["gemma2.attention.sliding_window"], { sliding_window: 4096 }],
  ["gemma2", { attn_logit_softcapping: 9, layer_types: null }, ["gemma2.attn_logit_softcapping"], { attn_logit_softcapping: 50 }],
  ["gemma2", { final_logit_softcapping: 9, layer_types: null }, ["gemma2.final_logit_softcapping"], { final_logit_softcapping: 30 }],
  ["gemma3_text", {}, ["gemma3.final_logit_softcapping"], { final_logit_softcapping: null }],
  ["gemma3n_text", gemma3n, ["gemma3n.final_logit_softcapping"], { final_logit_softcapping: 30 }],
  ["gemma4_text", {}, ["gemma4.final_logit_softcapping"], { final_logit_softcapping: 30 }],
  ["phi3", { num_hidden_layers: 32, max_position_embeddings: 4096 }, ["phi3.attention.sliding_window"], { sliding_window: 2047 }],
  ["phi3", { num_hidden_layers: 40, max_position_embeddings: 131072 }, ["phi3.attention.sliding_window"], { sliding_window: null }],
])("an old file without keys is read as llama.cpp reads it: %s with %o, without %o", (family, change, silent, wanted) => {
  const metadata = new Map<string, GgufValue>();
  for (const [key, { type, value }] of ggufMetadata(configIn(family, change), "config.json"))
    if (!silent.includes(key)) metadata.set(key, type === "i32[]" ? Int32Array.from(value as number[]) : (value as GgufValue));
  const shape = [8, 8];
  const entries = new Map(["token_embd.weight", "blk.0.laurel_l.weight"].map((name) => [name, { name, shape } as unknown as GgufEntry]));
  const { json } = ggufConfig({ name: "old.gguf", metadata, entries, factors: new Map() });
  expect(json).toMatchObject(wanted);
});

test.each<readonly [change: Json, sections: readonly number[]]>([
  [{ head_dim: 256, rope_parameters: { partial_rotary_factor: 0.25 } }, [11, 11, 10, 0]],
  [{ head_dim: 256, rope_parameters: { partial_rotary_factor: 0.25, mrope_section: [8, 12, 12] } }, [11, 11, 10, 0]],
  [{ head_dim: 16, rope_parameters: { partial_rotary_factor: 0.5 } }, [2, 1, 1, 0]],
])(
  "sections of positions are all pairs that turn: more end llama.cpp's process, and others would have no position there: %o",
  (change, sections) => {
    const metadata = ggufMetadata(configIn("qwen3_5_text", change), "config.json");
    expect(metadata.get("qwen35.rope.dimension_sections")?.value).toEqual(sections);
  },
);

test("experts that are chosen from all groups are in one, since llama.cpp ends its process over a file that says otherwise", () => {
  const groups = (change: Json): readonly unknown[] => {
    const metadata = ggufMetadata(configIn("deepseek_v3", { rope_interleave: true, ...change }), "config.json");
    return ["count", "used_count"].map((key) => metadata.get(`deepseek2.expert_group_${key}`)?.value);
  };
  expect(groups({ n_group: 2, topk_group: 2 })).toEqual([1, 1]);
  expect(groups({ n_group: 2, topk_group: 1 })).toEqual([2, 1]);
});

test("no file says that more experts are chosen than there are, over which llama.cpp ends its process", () => {
  const file = fileURLToPath(new URL("goldens-families/granitemoehybrid/model/config.json", import.meta.url));
  const config = { ...(JSON.parse(readFileSync(file, "utf8")) as Json), num_local_experts: 0, num_experts_per_tok: 2, mamba_n_groups: 1 };
  const metadata = ggufMetadata(readFamily(config, "config.json"), "config.json");
  expect(metadata.get("granitehybrid.expert_used_count")?.value).toBe(0);
});

describe.each(familyCases.filter(({ folder }) => mapped(folder)))("$name", ({ name, folder }) => {
  test("filed and read, it gives the model's logits", async () => {
    const device = await testDevice();
    const { model } = await loadModel(join(folder, "model"), { device });
    const [says, change] = refused[name] ?? [];
    if (says) expect(() => ggufMetadata(configOf(model), "config.json")).toThrow(says);
    if (change && Object.keys(change).length === 0) return model.dispose();
    const read = configOf(model, change);
    const file = await fileOf(await contentOf(model, read));
    const filed = await modelOfGguf(file, device);
    expect({ unread: filed.unread, unused: filed.unused }).toEqual({ unread: [], unused: [] });
    await opened(join(folder, "io.safetensors"), async (io) => {
      const ids = await integers(io, "input_ids");
      const wanted = decoderOf(read, model.namedParameters()).forward(ids);
      const logits = filed.model.forward(ids);
      await realize(wanted, logits);
      const [expected, found] = [await wanted.data(), await logits.data()];
      expect(Math.max(...Array.from(found, (value, i) => Math.abs(value - (expected[i] ?? 0))))).toBeLessThan(1e-4);
    });
    filed.model.dispose();
    model.dispose();
  });
});
