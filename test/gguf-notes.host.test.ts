// What llama.cpp does with our files otherwise than they say: each of these was computed with it (scripts/compare-exports.mjs), and nothing else was found.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { ggufNotes } from "../packages/models/src/families/gguf-model.js";
import { readFamily } from "../packages/models/src/families/read.js";

type Json = Readonly<Record<string, unknown>>;

/** Notes on a family's own config with some fields changed. */
function notesOf(name: string, changed: Json): readonly string[] {
  const file = fileURLToPath(new URL(`goldens-families/${name}/model/config.json`, import.meta.url));
  // Of biases the rows of gguf-families.test.ts speak.
  const usual = { attention_bias: name === "gpt_oss", use_bias: false };
  return ggufNotes(readFamily({ ...(JSON.parse(readFileSync(file, "utf8")) as Json), ...usual, ...changed }, "config.json"), "config.json");
}

const yarn = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 16 };
const scaled = (fields: Json): Json => ({ rope_parameters: null, rope_scaling: { ...yarn, ...fields } });
const square = { hidden_size: 32, num_attention_heads: 4, head_dim: 8 };

test.each<readonly [what: string, family: string, changed: Json, notes: readonly RegExp[]]>([
  ["YaRN as usual", "qwen3", scaled({}), []],
  ["YaRN's ramp elsewhere", "qwen3", scaled({ beta_fast: 8 }), [/are 8 and 1, and llama\.cpp takes 32 and 1 for this architecture/]],
  ["the same where llama.cpp reads it", "ministral3", {}, []],
  ["a ramp that ends between pairs", "gpt_oss", scaled({ truncate: false }), [/llama\.cpp rounds the ends of the ramp to whole pairs/]],
  ["factors for long texts", "llama-longrope", {}, [/for texts of up to \d+ tokens start it with -c \d+/]],
  [
    "norms of latent vectors as the others",
    "deepseek_v3",
    { ...scaled({ mscale: 1, mscale_all_dim: 1 }), rms_norm_eps: 1e-6, q_lora_rank: 4 },
    [],
  ],
  [
    "norms of latent vectors",
    "deepseek_v3",
    { rope_scaling: null, rms_norm_eps: 1e-5, q_lora_rank: 4 },
    [/"rms_norm_eps" is 0\.00001\..*0\.000001/],
  ],
  [
    "one stretch for two",
    "deepseek_v3",
    { ...scaled({ mscale: 1 }), rms_norm_eps: 1e-6, q_lora_rank: 4 },
    [/are 1 and missing, and llama\.cpp computes/],
  ],
  ["time steps of a Mamba", "nemotron_h", {}, [/time steps are at least 0\.001, and in llama\.cpp 0/]],
  [
    "biases in the feed-forward",
    "ernie4_5",
    { use_bias: true },
    [/"use_bias" is true: llama\.cpp loads no file of this family with these biases/],
  ],
  ["no biases", "ernie4_5", { use_bias: false }, []],
  ["heads that are not as wide as the model", "cohere2", { ...square, head_dim: 4 }, [/The 4 heads of 4 are not as wide as the model, 32/]],
  ["heads that are", "cohere2", square, []],
  ["the same of EXAONE", "exaone4", { ...square, head_dim: 4 }, [/The 4 heads of 4/]],
  [
    "heads of a delta net",
    "qwen3_next",
    { linear_key_head_dim: 4, linear_value_head_dim: 6 },
    [/6 wide and those of keys 4: llama\.cpp loads/],
  ],
  [
    "the length of a delta net's keys",
    "qwen3_next",
    { linear_key_head_dim: 4, linear_value_head_dim: 4, rms_norm_eps: 1e-3 },
    [/and in llama\.cpp with "rms_norm_eps", 0\.001/],
  ],
  ["the same as there", "qwen3_next", { linear_key_head_dim: 4, linear_value_head_dim: 4, rms_norm_eps: 1e-6 }, []],
  ["norms of queries in few layers", "cohere", { use_qk_norm: true }, [/from 64 layers on: it loads no such file of 2/]],
  ["norms of queries in many", "cohere", { use_qk_norm: true, num_hidden_layers: 64 }, []],
  [
    "windows in few layers",
    "exaone4",
    { ...square, sliding_window: 4, layer_types: null, sliding_window_pattern: 2 },
    [/see 4 tokens back, which llama\.cpp reads of 64 layers alone/],
  ],
  ["windows in many", "exaone4", { ...square, sliding_window: 4, layer_types: null, num_hidden_layers: 64 }, []],
  [
    "whole queries",
    "deepseek_v3",
    { rope_scaling: null, rms_norm_eps: 1e-6, q_lora_rank: null },
    [/"q_lora_rank" is null, and llama\.cpp tells by the number of layers, 2, that it is a number/],
  ],
  [
    "whole queries of DeepSeek-V2-Lite's layers",
    "deepseek_v3",
    { rope_scaling: null, rms_norm_eps: 1e-6, q_lora_rank: null, num_hidden_layers: 27 },
    [],
  ],
])("%s", (_, family, changed, notes) => {
  const found = notesOf(family, changed);
  expect(found.length, found.join("\n")).toBe(notes.length);
  for (const [i, says] of notes.entries()) expect(found[i]).toMatch(says);
});
