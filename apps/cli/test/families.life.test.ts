// Slow: every command on a model of each group of families.
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { lowrankHere, printed, scratchFolder } from "./cli.js";

const folder = scratchFolder();
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const data = join(folder, "rows.jsonl");
const words = ["cat", "dog", "tree", "moth", "path", "stone"];
const rows = words.flatMap((a) => words.map((b) => ({ prompt: `${a} ${b} `, completion: `${b} ${a}.` })));
writeFileSync(data, rows.map((row) => JSON.stringify(row)).join("\n"));

/** A model of each group: what differs from Llama by options, blocks of other shapes, other mixers, several at once. They have a tokenizer. */
const groups = [
  { model: "qwen3", targets: ["q_proj", "v_proj"], methods: "lora" },
  { model: "gpt_neox", targets: ["query_key_value"], methods: "lora" },
  // A prefix needs keys in every layer, and for (IA)³ nobody knows targets: both are left out.
  { model: "lfm2", targets: ["in_proj", "q_proj", "v_proj"], methods: "lora,prefix,ia3" },
  { model: "falcon_h1", targets: ["in_proj", "q_proj", "v_proj"], methods: "lora" },
] as const;

/** What a command printed, as JSON, or the test's failure with what it said. */
async function ran(...args: readonly string[]): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await lowrankHere([...args, "--json"]);
  expect(code, stderr).toBe(0);
  return printed(stdout);
}

describe.each(groups)("$model", ({ model: name, targets, methods }) => {
  const model = fileURLToPath(new URL(`../../../test/goldens-families/${name}/model`, import.meta.url));
  const [run, merged] = [join(folder, name, "run"), join(folder, name, "merged")];
  const cpu = ["--device", "cpu"];

  test("inspect and plan", async () => {
    const { wouldTrain } = await ran("inspect", model);
    const { layers } = wouldTrain as { readonly layers: readonly string[] };
    expect([...new Set(layers.map((layer) => layer.split(".").at(-1)))].sort()).toEqual(targets);
    const { peakBytes } = await ran("plan", "--model", model, "--batch", "2", "--seq", "16");
    expect(peakBytes).toBeGreaterThan(0);
  });

  test("train, eval, generate and merge: the merged model says what the adapted one says", async () => {
    const trained = await ran("train", "--model", model, "--data", data, "--steps", "4", "--lr", "1e-2", "--out", run, ...cpu);
    expect(trained["steps"]).toBe(4);
    const { loss } = await ran("eval", "--model", model, "--adapter", run, "--data", data, "--rows", "6", ...cpu);
    await ran("merge", "--model", model, "--adapter", run, "--out", merged, ...cpu);
    const { loss: again } = await ran("eval", "--model", merged, "--data", data, "--rows", "6", ...cpu);
    expect(again).toBeCloseTo(Number(loss), 4);
    const ask = ["--prompt", "the cat ", "--max-new-tokens", "6", ...cpu];
    expect(await ran("generate", "--model", merged, ...ask)).toEqual(await ran("generate", "--model", model, "--adapter", run, ...ask));
  });

  test("compare, without the methods that have no place", async () => {
    const options = ["--methods", methods, "--steps", "2", "--eval-rows", "4", "--latency-seconds", "0.01"];
    const out = join(folder, name, "compared");
    const { methods: compared } = await ran("compare", "--model", model, "--data", data, ...options, "--out", out, ...cpu);
    expect((compared as readonly { readonly method: string }[]).map(({ method }) => method)).toEqual(["lora"]);
  });
});
