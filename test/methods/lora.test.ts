// Slow: some fifty cases, each of which plans four graphs of a whole model.
// LoRA and DoRA with every option of PEFT's configuration, all first values and both optimizers of their own, against PEFT.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { loadAdapter } from "@lowrank/lora";
import { describe, expect, test } from "vitest";
import { casesInShare, methodCases, modelOf, testAdapter } from "../golden.js";

/** What is refused, and why. */
const refused = new Map([["methods/llama-tied-embedding-ensured", /ensure_weight_tying/]]);
const lora = methodCases.filter(({ settings }) => settings.method === "LORA");

describe.each(casesInShare(lora.filter(({ name }) => !refused.has(name))))("$name", (golden) => testAdapter(golden));

test.each(lora.filter(({ name }) => refused.has(name)))("$name is refused by name", async (golden) => {
  const model = await modelOf(golden);
  await expect(loadAdapter(model, join(golden.folder, "adapter_init"))).rejects.toThrow(refused.get(golden.name));
  expect(JSON.parse(readFileSync(join(golden.folder, "adapter_init", "adapter_config.json"), "utf8"))).toMatchObject({
    ensure_weight_tying: true,
  });
});
