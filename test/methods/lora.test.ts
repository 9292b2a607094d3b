// LoRA and DoRA with every option of PEFT's configuration, against PEFT.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { loadAdapter } from "@lowrank/lora";
import { describe, expect, test } from "vitest";
import { methodCases, modelOf, testAdapter } from "../golden.js";

/** First values and optimizers that are not built; `init_lora_weights` of the former is refused by name (below). */
const missing = /-(pissa|olora|eva|eva-uniform|loraplus|lorafa)$/;
/** What is refused, and why. */
const refused = new Map([["methods/llama-tied-embedding-ensured", /ensure_weight_tying/]]);
const lora = methodCases.filter(({ name, settings }) => settings.method === "LORA" && !missing.test(name));

describe.each(lora.filter(({ name }) => !refused.has(name)))("$name", (golden) => testAdapter(golden));

test.each(lora.filter(({ name }) => refused.has(name)))("$name is refused by name", async (golden) => {
  const model = await modelOf(golden);
  await expect(loadAdapter(model, join(golden.folder, "adapter_init"))).rejects.toThrow(refused.get(golden.name));
  expect(JSON.parse(readFileSync(join(golden.folder, "adapter_init", "adapter_config.json"), "utf8"))).toMatchObject({
    ensure_weight_tying: true,
  });
});

const firstValues = methodCases.filter(({ name }) => /-(pissa|olora|eva|eva-uniform)$/.test(name));

test.each(firstValues)("$name: its first values are refused by name", async (golden) => {
  const model = await modelOf(golden);
  await expect(loadAdapter(model, join(golden.folder, "adapter_init"))).rejects.toThrow(/init_lora_weights: "(pissa|olora|eva)"/);
});
