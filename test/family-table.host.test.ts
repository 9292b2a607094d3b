// docs/models.md says which families there are, and where LoRA goes in each.
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { targetsFor } from "@lowrank/lora";
import { modelOutline } from "@lowrank/models";
import { device } from "@lowrank/tensor";
import { expect, test } from "vitest";
import { readFamily } from "../packages/models/src/families/read.js";
import { families } from "../packages/models/src/families/table.js";

const text = readFileSync(new URL("../docs/models.md", import.meta.url), "utf8");
/** The rows of its table: type, examples, kinds, targets. */
const rows = [...text.matchAll(/^\| `((?!model_type)\w+)` \|([^|]*)\|([^|]*)\|([^|]*)\|$/gm)].map(([, type = "", , , targets = ""]) => ({
  type,
  targets: targets.trim().split(", "),
}));

test("every family that is read has a row, and every row a family", () => {
  expect(rows.map(({ type }) => type).sort()).toEqual(Object.keys(families).sort());
});

const dev = await device("reference");
const folder = fileURLToPath(new URL("./goldens-families/", import.meta.url));
const configs = readdirSync(folder, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => {
    const config = JSON.parse(readFileSync(`${folder}${name}/model/config.json`, "utf8")) as Record<string, unknown>;
    return { name, type: String(config["model_type"]), config };
  })
  .filter(({ type }) => Object.hasOwn(families, type));

test.each(configs)("LoRA of $name goes where its row says, PEFT's table first", ({ type, config }) => {
  const model = modelOutline(config, { device: dev });
  const row = rows.find((one) => one.type === type);
  expect([...targetsFor(model)].sort()).toEqual([...(row?.targets ?? [])].sort());
});

test.each(configs)("no field of $name's config.json is unknown", ({ name, config }) => {
  expect(readFamily(config, name).unknown).toEqual([]);
});

/** Families whose rope has kinds of its own, one for each type of layer, or none. */
const ownRopes = new Set(["phi3", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "gemma4", "gemma4_text", "olmo3", "nemotron_h"]);
const plainRopes = configs.filter(({ type, config }) => !ownRopes.has(type) && config["text_config"] === undefined);

test.each(plainRopes)("with dynamic rope, $name reaches further than its max_position_embeddings by the factor", ({ config }) => {
  const { rope_scaling: _old, rope_theta: _theta, ...rest } = config;
  const changed = { ...rest, rope_parameters: { rope_type: "dynamic", factor: 2, rope_theta: 500 } };
  const { contextLength } = modelOutline(changed, { device: dev });
  expect(contextLength).toBe(2 * Number(config["max_position_embeddings"]));
});

/** Where the end tokens stand, and which they are. */
const ends: readonly (readonly [name: string, change: Record<string, unknown>, tokens: readonly number[]])[] = [
  ["gpt_neox", {}, [2]],
  ["gpt_neox", { eos_token_id: [4, 9] }, [4, 9]],
  ["gpt_neox", { eos_token_id: null }, []],
  // Its config's own, where the file has none.
  ["glm4", {}, [151329, 151336, 151338]],
  ["glm4", { eos_token_id: 5 }, [5]],
  // Of the text model, and of the whole, which has the last word.
  ["gemma3", {}, [2]],
  ["gemma3", { eos_token_id: [1, 106] }, [1, 106]],
];

test.each(ends)("%s with %j ends at %j", (name, change, tokens) => {
  const config = configs.find((one) => one.name === name)?.config;
  expect(modelOutline({ ...config, ...change }, { device: dev }).stopTokens).toEqual(tokens);
});

test("every family has a case of its own", () => {
  const own = new Set(configs.map(({ type }) => type));
  // GPT-2 has its own goldens.
  expect(Object.keys(families).filter((type) => !own.has(type))).toEqual(["gpt2"]);
});
