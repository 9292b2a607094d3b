import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { applyAdapter, loadAdapter, saveAdapter } from "@lowrank/lora";
import { initModel, loadModel, saveModel } from "@lowrank/models";
import { device, nodeFiles, readSafetensors } from "@lowrank/tensor";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lowrankHere, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const at = (name: string): string => join(folder, name);
const { model, train: trainRows, test: testRows } = await tinyProject(folder);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Result {
  readonly merged: number;
  readonly parameters: number;
  readonly check: {
    readonly source: string;
    readonly lossBefore: number;
    readonly lossAfter: number;
    readonly meanKl: number;
    readonly equalTokens: number;
    readonly greedyTokens: number;
    readonly isWithin: boolean;
  };
}

let made = 0;
async function merged(
  ...args: readonly string[]
): Promise<{ code: number | null; out: string; result: Result; stderr: string; stdout: string }> {
  const out = at(`merged-${made++}`);
  const told = await lowrankHere(["merge", "--device", "cpu", "--out", out, ...args, "--json"]);
  return { ...told, out, result: JSON.parse(told.stdout || "{}") as Result };
}

/** An adapter of random numbers on the model: a change that is much larger than rounding. */
async function randomAdapter(
  name: string,
  base: string,
  options: { readonly seed: number; readonly targets: readonly string[]; readonly scale?: number; readonly quantize?: "nf4" },
): Promise<string> {
  const dev = await device("cpu", { threads: 1 });
  const { model: loaded } = await loadModel(base, { device: dev, quantize: options.quantize ?? null });
  const adapter = applyAdapter(loaded, {
    method: "lora",
    rank: 2,
    alpha: 4,
    targets: [...options.targets],
    seed: options.seed,
    onWarning: () => {},
  });
  for (const [key, parameter] of adapter.namedParameters())
    if (/lora_(embedding_)?[AB]/.test(key))
      parameter.assign(
        parameter
          .mul(0)
          .add((options.scale ?? 0.1) * (key.includes("_A") ? 1 : 0.7))
          .add(parameter),
      );
  await saveAdapter(adapter, at(name));
  dev.dispose();
  return at(name);
}

const config = (path: string): Record<string, unknown> => JSON.parse(readFileSync(join(path, "config.json"), "utf8"));
async function dtypes(path: string): Promise<Set<string>> {
  const source = await nodeFiles.open(join(path, "model.safetensors"));
  if (!source) throw new Error(`${path} has no weights`);
  const file = await readSafetensors(source);
  const found = new Set([...file.entries.values()].map(({ dtype }) => dtype));
  await file.close();
  return found;
}

let adapter: string;
let half: string;
beforeAll(async () => {
  adapter = await randomAdapter("adapter", model, { seed: 1, targets: ["q_proj", "down_proj"] });
  half = at("half");
  const dev = await device("cpu", { threads: 1 });
  const loaded = await loadModel(model, { device: dev });
  await saveModel(loaded.model, half, { dtype: "bf16" });
  dev.dispose();
});

describe("merge", () => {
  test("of f32 is the same function: compared on prose, with a table and a card", async () => {
    const { code, result, out, stderr } = await merged("--model", model, "--adapter", adapter);
    expect(code, stderr).toBe(0);
    expect(result.check.source).toContain("prose that ships");
    expect(result.check.meanKl).toBeLessThan(1e-6); // f32 sums of another order
    expect(result.check.equalTokens).toBe(result.check.greedyTokens);
    expect(result.check.greedyTokens).toBe(256);
    expect(stderr).toMatch(/mean KL, nats a token/);
    for (const line of stderr.split("\n").filter((text) => /^(loss |mean KL|─|equal)/.test(text)))
      expect(line.length).toBeLessThanOrEqual(80);
    const card = readFileSync(join(out, "README.md"), "utf8");
    expect(card).toMatch(/^---\nlibrary_name: transformers\npipeline_tag: text-generation\n/);
    expect(card).toContain("| mean KL, nats a token |");
    expect(readdirSync(out)).not.toContain(".lowrank.json");
  });

  test("of bf16 stays bf16 unless --dtype asks for more bits, which are closer", async () => {
    const stored = await merged("--model", half, "--adapter", adapter);
    expect(stored.code, stored.stderr).toBe(0);
    expect(await dtypes(stored.out)).toEqual(new Set(["BF16"]));
    const wide = await merged("--model", half, "--adapter", adapter, "--dtype", "f32");
    expect(wide.code, wide.stderr).toBe(0);
    expect(await dtypes(wide.out)).toEqual(new Set(["F32"]));
    expect(wide.result.check.meanKl).toBeLessThan(1e-6);
    expect(stored.result.check.meanKl).toBeGreaterThan(wide.result.check.meanKl);
  });

  test("an adapter that was trained on nf4 is added to those weights, unless --base-quantize none takes the stored ones", async () => {
    const onBlocks = await randomAdapter("on-nf4", half, { seed: 5, targets: ["q_proj"], quantize: "nf4" });
    const asTrained = await merged("--model", half, "--adapter", onBlocks);
    expect(asTrained.code, asTrained.stderr).toBe(0);
    expect(asTrained.stderr).toMatch(/quantized to nf4, as when \S+ was trained \(--base-quantize none/);
    expect(await dtypes(asTrained.out)).toEqual(new Set(["BF16"]));
    expect(readFileSync(join(asTrained.out, "README.md"), "utf8")).toContain("whose weights are those of its blocks in nf4");
    const onStored = await merged("--model", half, "--adapter", onBlocks, "--base-quantize", "none");
    expect(onStored.code, onStored.stderr).toBe(0);
    expect(Math.abs(onStored.result.check.lossBefore - asTrained.result.check.lossBefore)).toBeGreaterThan(1e-3);
    const exported = (out: string, ...more: readonly string[]) =>
      lowrankHere(["export", onBlocks, "--model", half, "--format", "safetensors", "--out", at(out), ...more]);
    expect((await exported("exported")).stderr).toContain("quantized to nf4, as when");
    expect((await exported("exported-stored", "--base-quantize", "none")).stderr).not.toContain("as when");
    const weights = (path: string) => readFileSync(join(path, "model.safetensors"));
    expect(weights(at("exported")).equals(weights(asTrained.out))).toBe(true);
    expect(weights(at("exported-stored")).equals(weights(onStored.out))).toBe(true);
    const whole = await lowrankHere(["export", half, "--format", "gguf", "--base-quantize", "nf4", "--out", at("whole.gguf")]);
    expect([whole.code, whole.stderr]).toEqual([2, expect.stringContaining("--base-quantize is for the base of an adapter")]);
    // A base in blocks of its own keeps them: what is said names this command's flag.
    await lowrankHere(["export", half, "--format", "gguf", "--type", "q8_0", "--out", at("blocks.gguf")]);
    const onOthers = await merged("--model", at("blocks.gguf"), "--adapter", onBlocks);
    expect([onOthers.code, onOthers.stderr]).toEqual([2, expect.stringMatching(/--base-quantize none .*\n.*Load it as it is/s)]);
    expect(onOthers.stderr).not.toContain("(--quantize none");
  });

  test.each([
    ["nf4", "model.safetensors"],
    ["int8", "model.safetensors"],
    ["q8_0", "model.gguf"],
    ["q4_0", "model.gguf"],
  ])("--quantize %s writes %s, which is measured, marked, and loads", async (type, name) => {
    const told = await merged("--model", half, "--adapter", adapter, "--quantize", type, "--tolerance", "5");
    expect(told.code, told.stderr).toBe(0);
    expect(told.result.check.meanKl).toBeGreaterThan(0);
    expect(told.result.check.meanKl).toBeLessThan(type === "nf4" || type === "q4_0" ? 0.5 : 0.01);
    expect(readFileSync(join(told.out, "README.md"), "utf8")).toContain("| mean KL, nats a token |");
    expect(existsSync(join(told.out, name))).toBe(true);
    const dev = await device("cpu", { threads: 1 });
    const path = name.endsWith(".gguf") ? join(told.out, name) : told.out;
    const { model: loaded } = await loadModel(path, { device: dev });
    const packed = [...loaded.namedParameters().values()].flatMap(({ packing }) => packing?.type ?? []);
    expect(packed.length).toBeGreaterThanOrEqual(14);
    expect(loaded.origin?.merged).toHaveLength(1);
    dev.dispose();
    const twice = await merged("--model", path, "--adapter", adapter);
    expect([twice.code, twice.stderr]).toEqual([2, expect.stringMatching(/hold the adapter .* already/)]);
  });

  test.each([
    [["--quantize", "q6_k"], /--quantize.*nf4, fp4, int8, q8_0, q4_0, q4_k_m/],
    [["--quantize", "q8_0", "--dtype", "f16"], /writes a GGUF file.* Leave --dtype out/],
  ])("%j is refused", async (args, says) => {
    const { code, stderr, out } = await merged("--model", half, "--adapter", adapter, ...args);
    expect([code, stderr]).toEqual([2, expect.stringMatching(says)]);
    expect(existsSync(out)).toBe(false);
  });

  test("of a base in blocks is in bf16, and the card says so", async () => {
    const base = await merged("--model", half, "--adapter", adapter, "--quantize", "nf4", "--tolerance", "5");
    const other = await randomAdapter("on-blocks", base.out, { seed: 6, targets: ["q_proj"] });
    const told = await merged("--model", base.out, "--adapter", other);
    expect(told.code, told.stderr).toBe(0);
    expect(await dtypes(told.out)).toEqual(new Set(["BF16"]));
    expect(readFileSync(join(told.out, "README.md"), "utf8")).toContain(
      "Weights that the base has in blocks are stored in bf16, the others as there; sums are f32, rounded once.",
    );
  });

  test("above --tolerance ends with 3, says what to do, and leaves nothing", async () => {
    const { code, out, result, stderr } = await merged("--model", half, "--adapter", adapter, "--tolerance", "0");
    expect(code).toBe(3);
    expect(result.check.isWithin).toBe(false);
    expect(stderr).toMatch(/Keep the adapter beside the base .*--dtype f32/);
    expect(existsSync(out)).toBe(false);
  });

  test("is compared on the held-out rows of the run, wherever its files are read from, else on those of --check", async () => {
    const run = at("run");
    const trained = await lowrankHere([
      ...["train", "--model", model, "--data", trainRows, "--eval-data", testRows, "--out", run, "--device", "cpu"],
      ...["--rank", "2", "--steps", "3", "--batch-size", "4"],
    ]);
    expect(trained.code, trained.stderr).toBe(0);
    const { code, result, stderr } = await merged("--model", model, "--adapter", run);
    expect(code, stderr).toBe(0);
    expect(result.check.source).toBe(`held-out rows of the run in ${run}`);
    expect(result.check.lossAfter).toBeCloseTo(result.check.lossBefore, 4);
    const checked = await merged("--model", model, "--adapter", run, "--check", trainRows);
    expect(checked.result.check.source).toBe(`rows of ${trainRows}`);
    writeFileSync(at("words.txt"), "a red box\nan old lamp and a new chair\n");
    const text = await merged("--model", model, "--adapter", run, "--check", at("words.txt"));
    expect(text.result.check.source).toBe(`passages of ${at("words.txt")}`);
  });

  test("rows that are gone are said, and prose is used", async () => {
    const run = at("run-gone");
    const rows = at("gone.jsonl");
    writeFileSync(rows, readFileSync(testRows));
    const train = ["train", "--model", model, "--data", trainRows, "--eval-data", rows, "--out", run, "--device", "cpu"];
    expect((await lowrankHere([...train, "--rank", "2", "--steps", "1", "--batch-size", "4"])).code).toBe(0);
    rmSync(rows);
    const { code, result, stderr } = await merged("--model", model, "--adapter", run);
    expect(code, stderr).toBe(0);
    expect(stderr).toContain("held-out rows of the run");
    expect(result.check.source).toContain("prose");
  });

  test("twice is refused by the mark in config.json, another adapter is not, and both are marked then", async () => {
    const once = await merged("--model", model, "--adapter", adapter);
    expect(config(once.out)["lowrank_merged"]).toHaveLength(1);
    const twice = await merged("--model", once.out, "--adapter", adapter);
    expect(twice.code).toBe(2);
    expect(twice.stderr).toMatch(/hold the adapter .* already/);
    expect(existsSync(twice.out)).toBe(false);
    const asked = await lowrankHere([
      "generate",
      "--model",
      once.out,
      "--adapter",
      adapter,
      "--prompt",
      "a",
      "--max-new-tokens",
      "2",
      "--device",
      "cpu",
    ]);
    expect(asked.code).toBe(2);
    const other = await randomAdapter("other", model, { seed: 7, targets: ["v_proj"] });
    const both = await merged("--model", once.out, "--adapter", other);
    expect(both.code, both.stderr).toBe(0);
    expect(both.stderr).not.toContain("lowrank_merged");
    expect(config(both.out)["lowrank_merged"]).toHaveLength(2);
  });

  test("two adapters at once are their sum; the same one twice is refused", async () => {
    const other = await randomAdapter("second", model, { seed: 9, targets: ["q_proj", "up_proj"] });
    const { code, result, out, stderr } = await merged("--model", model, "--adapter", adapter, "--adapter", other);
    expect(code, stderr).toBe(0);
    expect(result.check.meanKl).toBeLessThan(1e-6);
    const dev = await device("cpu", { threads: 1 });
    const [base, sum] = [(await loadModel(model, { device: dev })).model, (await loadModel(out, { device: dev })).model];
    const deltas = await Promise.all(
      [adapter, other].map(async (path) => {
        const loaded = await loadAdapter(base, path);
        loaded.disable();
        return loaded;
      }),
    );
    const name = "model.layers.0.self_attn.q_proj";
    const [a, b] = deltas.map((each) => each.attachments.get(name)?.pair?.delta());
    const weight = base.namedParameters().get(`${name}.weight`);
    const expected = await (a && b && weight ? weight.add(a).add(b) : base.head.weight).data();
    const found = (await sum.namedParameters().get(`${name}.weight`)?.data()) ?? [];
    for (const [i, value] of expected.entries()) expect(found[i]).toBeCloseTo(value, 6);
    dev.dispose();
    expect((await merged("--model", model, "--adapter", adapter, "--adapter", adapter)).code).toBe(2);
  });

  test("an adapter on one side of a tied weight unties it", async () => {
    const tied = await randomAdapter("tied", model, { seed: 4, targets: ["lm_head"] });
    const { code, result, out, stderr } = await merged("--model", model, "--adapter", tied);
    expect(code, stderr).toBe(0);
    expect(result.check.meanKl).toBeLessThan(1e-6);
    expect(config(out)).toMatchObject({ tie_word_embeddings: false });
    expect(result.parameters).toBe(257 * 32 * 2 + 32 + 2 * (2 * 32 + 4 * 32 * 32 + 3 * 32 * 64));
  });

  test("a model without a tokenizer is compared on random tokens", async () => {
    const bare = at("bare");
    mkdirSync(bare);
    for (const name of ["config.json", "model.safetensors"]) writeFileSync(join(bare, name), readFileSync(join(model, name)));
    const { code, result, stderr } = await merged("--model", bare, "--adapter", adapter);
    expect(code, stderr).toBe(0);
    expect(result.check.source).toContain("random tokens");
  });

  test("what cannot be merged is refused before anything is written", async () => {
    const dev = await device("cpu", { threads: 1 });
    const loaded = await initModel(config(model), { device: dev });
    const prompt = applyAdapter(loaded, { method: "prompt", length: 3, onWarning: () => {} } as never);
    await saveAdapter(prompt, at("prompt"));
    dev.dispose();
    const { code, out, stderr } = await merged("--model", model, "--adapter", at("prompt"));
    expect(code).toBe(2);
    expect(stderr).toMatch(/cannot be merged/);
    expect(existsSync(out)).toBe(false);
  });
});
