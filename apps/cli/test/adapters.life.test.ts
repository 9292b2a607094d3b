import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lowrankHere as lowrank, printed, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model, train } = await tinyProject(folder);
const [one, two] = [join(folder, "one"), join(folder, "two")];
const at = (name: string): string => join(folder, name);

beforeAll(async () => {
  const common = ["--model", model, "--data", train, "--device", "cpu", "--steps", "6", "--batch-size", "4", "--lr", "5e-2"];
  const first = await lowrank(["train", ...common, "--targets", "q_proj,v_proj", "--rank", "2", "--out", one]);
  expect(first.code, first.stderr).toBe(0);
  const second = await lowrank(["train", ...common, "--targets", "q_proj,down_proj", "--rank", "4", "--seed", "1", "--out", two]);
  expect(second.code, second.stderr).toBe(0);
}, 120_000);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function json<T>(args: readonly string[]): Promise<T> {
  const { code, stdout, stderr } = await lowrank([...args, "--json"]);
  expect(code, stderr).toBe(0);
  return printed<T>(stdout);
}

interface Text {
  readonly text: string;
  readonly tokens: number;
}
const ask = (...more: readonly string[]): string[] => ["generate", "--model", model, "--device", "cpu", "--max-new-tokens", "6", ...more];

describe("generate", () => {
  test("prompts with an adapter each, in one batch, are answered as one by one", async () => {
    const rows = [
      ["red box:", one],
      ["a large blue lamp:", two],
      ["old", "none"],
      ["red box:", two],
    ] as const;
    const { results } = await json<{ results: Text[] }>(
      ask(...rows.flatMap(([prompt, adapter]) => ["--prompt", prompt, "--adapter", adapter])),
    );
    const alone: Text[] = [];
    for (const [prompt, adapter] of rows)
      alone.push(await json<Text>(ask("--prompt", prompt, ...(adapter === "none" ? [] : ["--adapter", adapter]))));
    expect(results).toEqual(alone);
    expect(results[0]).not.toEqual(results[3]);
  });

  test("one adapter serves all prompts", async () => {
    const { results } = await json<{ results: Text[] }>(ask("--adapter", one, "--prompt", "red box:", "--prompt", "old"));
    expect(results[0]).toEqual(await json<Text>(ask("--adapter", one, "--prompt", "red box:")));
    expect(results).toHaveLength(2);
  });
});

describe("combine", () => {
  test("two adapters of different ranks and targets, from their files alone", async () => {
    const out = at("cat");
    const args = ["combine", one, two, "--method", "cat", "--weights", "0.5,0.5", "--out", out];
    const result = await json<{ layers: number; method: string; weights: number[] }>(args);
    expect(result).toMatchObject({ layers: 6, method: "cat", weights: [0.5, 0.5] });
    expect((await lowrank(ask("--adapter", out, "--prompt", "red"))).code).toBe(0);
  });

  test("an adapter and its negation cancel", async () => {
    const [minus, none] = [at("minus"), at("nothing")];
    expect((await lowrank(["combine", one, "--weights", "-1", "--out", minus])).code).toBe(0);
    expect((await lowrank(["combine", one, minus, "--method", "cat", "--out", none])).code).toBe(0);
    expect(await json<Text>(ask("--adapter", none, "--prompt", "red box:"))).toEqual(await json<Text>(ask("--prompt", "red box:")));
  });

  test("ties with a density", async () => {
    const result = await lowrank(["combine", one, two, "--method", "ties_svd", "--density", "0.5", "--rank", "3", "--out", at("ties")]);
    expect(result.code, result.stderr).toBe(0);
    expect(result.stdout).toContain("2 adapters combined (ties_svd) on 6 layers");
  });
});

test("extract finds the adapter in what merging made, and names what it does not keep", async () => {
  const [merged, out] = [at("merged"), at("extracted")];
  expect((await lowrank(["merge", "--model", model, "--adapter", one, "--out", merged, "--device", "cpu"])).code).toBe(0);
  type Kept = { kept: number; layers: { name: string; rank: number; kept: number }[]; notKept: string[] };
  const found = await json<Kept>(["extract", "--base", model, "--tuned", merged, "--energy", "0.9999", "--out", out]);
  expect(found.kept).toBeGreaterThan(0.9999);
  expect(found.layers).toHaveLength(4);
  expect(found.layers.every(({ rank }) => rank <= 2)).toBe(true);
  expect(found.notKept).toEqual([]);
  expect(await json<Text>(ask("--adapter", out, "--prompt", "red box:"))).toEqual(
    await json<Text>(ask("--adapter", one, "--prompt", "red box:")),
  );

  const full = at("full");
  const trained = [
    "train",
    "--model",
    model,
    "--data",
    train,
    "--method",
    "full",
    "--steps",
    "2",
    "--lr",
    "1e-3",
    "--device",
    "cpu",
    "--out",
    full,
  ];
  expect((await lowrank(trained)).code).toBe(0);
  const told = await lowrank(["extract", "--base", model, "--tuned", full, "--rank", "1", "--out", at("extracted-full")]);
  expect(told.code, told.stderr).toBe(0);
  expect(told.stdout).toMatch(/not kept: .*model\.embed_tokens\.weight/);
  expect(told.stdout).toMatch(/model\.layers\.0\.mlp\.up_proj +1 +\d+\.\d\d %/);
});

test("resize goes down and up again", async () => {
  const [large, small] = [at("large"), at("small")];
  const up = await json<{ kept: number }>(["resize", one, "--rank", "8", "--out", large]);
  expect(up.kept).toBeCloseTo(1, 6);
  expect(await json<Text>(ask("--adapter", large, "--prompt", "red box:"))).toEqual(
    await json<Text>(ask("--adapter", one, "--prompt", "red box:")),
  );
  const down = await json<{ layers: { rank: number }[] }>(["resize", large, "--energy", "0.999999", "--out", small]);
  expect(down.layers.every(({ rank }) => rank <= 2)).toBe(true);
});

const mistakes: readonly (readonly [name: string, args: () => readonly string[], words: readonly string[]])[] = [
  ["more adapters than prompts", () => ask("--prompt", "red", "--adapter", one, "--adapter", two), ["1 prompts and 2 adapters"]],
  ["no prompt", () => ask(), ["--prompt is missing"]],
  ["no adapter to combine", () => ["combine", "--out", at("x")], ["needs folders"]],
  ["a missing adapter", () => ["combine", one, at("nowhere"), "--out", at("x")], ["nowhere"]],
  ["weights for fewer", () => ["combine", one, two, "--weights", "1", "--out", at("x")], ["--weights is 1 for 2"]],
  ["a weight that is no number", () => ["combine", one, two, "--weights", "1,half", "--out", at("x")], ["1,half"]],
  ["an unknown method", () => ["combine", one, two, "--method", "mean", "--out", at("x")], ["mean", "ties"]],
  ["ranks that differ", () => ["combine", one, two, "--method", "linear", "--out", at("x")], ["ranks 2, 4"]],
  ["ties without a density", () => ["combine", one, two, "--method", "ties_svd", "--out", at("x")], ["density"]],
  ["an output folder that holds files", () => ["combine", one, two, "--out", two], [two]],
  ["no rank and no energy", () => ["resize", one, "--out", at("x")], ["--rank or --energy"]],
  ["an energy above 1", () => ["resize", one, "--energy", "2", "--out", at("x")], ["--energy is 2"]],
  ["an adapter with a broken config", () => ["resize", broken(), "--rank", "2", "--out", at("x")], ["adapter_config.json"]],
  [
    "extracting from two equal models",
    () => ["extract", "--base", model, "--tuned", model, "--rank", "2", "--out", at("x")],
    ["No dense layer"],
  ],
];

function broken(): string {
  mkdirSync(at("broken"), { recursive: true });
  writeFileSync(join(at("broken"), "adapter_config.json"), "{");
  return at("broken");
}

for (const [name, args, words] of mistakes) {
  test(`${name}: exit 2, fact and remedy, nothing written`, async () => {
    const { code, stderr } = await lowrank(args());
    expect(code, stderr).toBe(2);
    for (const word of words) expect(stderr).toContain(word);
    expect(stderr).toContain("error: ");
    expect(stderr).not.toMatch(/^\s+at /m);
    expect(existsSync(at("x"))).toBe(false);
  });
}
