// The cases of model families, tiny checkpoints with transformers' and PEFT's values: test/goldens-families, and where they lie beside the clone
// those of shared/families, in one format.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { sharedDir, testBackend } from "test-support";

export interface FamilyCase {
  readonly name: string;
  readonly folder: string;
  /** `model_type` of its config.json, of the text model where that lies inside another. */
  readonly family: string;
}

/** What each family is built of that the others of its line are too: lavapipe runs one case of each line. */
const kinds: readonly (readonly string[])[] = [
  ["llama", "mistral", "qwen2", "smollm3", "ministral3", "mistral3"],
  ["phi3", "glm4"],
  ["qwen3", "gemma3_text", "gemma3", "hunyuan_v1_dense", "nanochat"],
  ["gemma", "gemma2", "granite"],
  ["olmo2", "olmo3", "exaone4"],
  ["cohere", "cohere2", "ernie4_5"],
  ["phi", "gpt_neox", "starcoder2", "stablelm"],
  ["lfm2", "lfm2_moe"],
  ["mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3"],
  ["qwen3_5_text", "qwen3_5", "qwen3_5_moe_text", "qwen3_5_moe", "qwen3_next"],
  ["gemma4_text", "gemma4", "gemma3n_text", "gemma3n"],
  ["granitemoehybrid", "falcon_h1", "nemotron_h"],
];

function casesIn(root: string | null, label: string): FamilyCase[] {
  if (!root || !existsSync(root)) return [];
  return readdirSync(root)
    .filter((name) => existsSync(join(root, name, "case.json")))
    .map((name) => {
      const folder = join(root, name);
      const config = JSON.parse(readFileSync(join(folder, "model", "config.json"), "utf8")) as { readonly model_type: string };
      const family = config.model_type;
      return { name: `${label}/${name}`, folder, family };
    });
}

const everyCase = [
  ...casesIn(fileURLToPath(new URL("./goldens-families", import.meta.url)), "own"),
  ...casesIn(sharedDir("families"), "shared"),
];

/**
 * Those that this run holds to their values: on the cpu and on SwiftShader all; on lavapipe the first of each kind, because each has a hundred
 * shaders of its own. With LOWRANK_GOLDENS=drawn the first of every third kind, by LOWRANK_GOLDEN_SEED; =rest is what that leaves out.
 */
export const familyCases: readonly FamilyCase[] = inThisRun(everyCase);

function inThisRun(all: readonly FamilyCase[]): readonly FamilyCase[] {
  const firsts = kinds.map((families) => all.find(({ family }) => families.includes(family)));
  if (testBackend() === "lavapipe") return all.filter((golden) => firsts.includes(golden));
  const part = process.env["LOWRANK_GOLDENS"] ?? "all";
  if (part === "all") return all;
  const seed = Number(process.env["LOWRANK_GOLDEN_SEED"] ?? 0);
  const drawn = firsts.filter((_, kind) => kind % 3 === seed % 3);
  return all.filter((golden) => drawn.includes(golden) === (part === "drawn"));
}
