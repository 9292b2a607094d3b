// Config files of every family, as the goldens have them, with sizes that no model has.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { modelOutline } from "@lowrank/models";
import { CheckpointError, type Device, device } from "@lowrank/tensor";
import { beforeAll, expect, test } from "vitest";
import { parametersIn } from "../packages/models/src/families/family.js";
import { readFamily } from "../packages/models/src/families/read.js";

const root = fileURLToPath(new URL("./goldens-families", import.meta.url));
const names = readdirSync(root, { withFileTypes: true })
  .filter((entry) => entry.isDirectory() && !entry.name.startsWith("_"))
  .map(({ name }) => name);

type Json = Record<string, unknown>;

let dev: Device;
beforeAll(async () => {
  dev = await device("reference");
});

function configOf(name: string, changed: Json): Json {
  const config = JSON.parse(readFileSync(join(root, name, "model", "config.json"), "utf8")) as Json & { text_config?: Json };
  Object.assign(config.text_config ?? config, changed);
  return config;
}

test.each(names)("%s with a billion layers, or a vocabulary of 10^13 tokens, is refused before anything of that size is made", (name) => {
  const refused = (changed: Json): void => expect(() => modelOutline(configOf(name, changed), { device: dev })).toThrow(CheckpointError);
  // Lists of what each layer is go: without them the number alone counts. Nemotron-H's layers are as many as its pattern has letters.
  const lists = { layer_types: null, layers_block_type: null, no_rope_layers: null, full_attn_idxs: null };
  if (!name.startsWith("nemotron_h")) refused({ ...lists, num_hidden_layers: 1e9 });
  refused({ vocab_size: 1e13 });
});

/** Parts that no golden has. */
const changes: Readonly<Record<string, Json>> = {
  gemma4_text: { enable_moe_block: true, num_experts: 3, top_k_experts: 2, moe_intermediate_size: 4 },
  nemotron_h: { layers_block_type: ["moe", "mamba", "attention"], moe_latent_size: 5 },
};

// What is none is not saved, trained, or given back.
test.each(names)("every tensor that the config of %s asks for is a parameter of its model", (name) => {
  const config = configOf(name, changes[name] ?? {});
  const asked = [...parametersIn(readFamily(config, name), dev).keys()].sort();
  expect([...modelOutline(config, { device: dev }).namedParameters().keys()].sort()).toEqual(asked);
});
