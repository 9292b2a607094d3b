import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lowrankHere, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const at = (name: string): string => join(folder, name);
const { model, train, test: heldOut } = await tinyProject(folder);
const run = at("run");
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The adapter in another folder, with other words on its base. */
function renamed(name: string, fields: Readonly<Record<string, unknown>>): string {
  cpSync(run, at(name), { recursive: true });
  const path = join(at(name), "adapter_config.json");
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), ...fields }));
  return at(name);
}

beforeAll(async () => {
  const args = ["--model", model, "--data", train, "--out", run, "--device", "cpu", "--rank", "2", "--steps", "1", "--batch-size", "4"];
  const { code, stderr } = await lowrankHere(["train", ...args]);
  expect(code, stderr).toBe(0);
});

const prompt = ["--prompt", "red box:", "--max-new-tokens", "2"];
const commands: Readonly<Record<string, readonly string[]>> = {
  generate: ["generate", "--adapter", run, ...prompt],
  eval: ["eval", "--adapter", run, "--data", heldOut],
  merge: ["merge", "--adapter", run, "--out", at("merged")],
  export: ["export", run, "--format", "safetensors", "--out", at("whole")],
};

describe("the base of an adapter", () => {
  test.each(Object.entries(commands))("is the one that it names in %s without --model, which is told", async (_, args) => {
    const { code, stderr } = await lowrankHere([...args, "--device", "cpu"]);
    expect(code, stderr).toBe(0);
    expect(stderr).toContain(`the base is ${model}, as ${run} says (--model names another)`);
  });

  test("is --model without a word where that is given, whatever the adapter names", async () => {
    const moved = renamed("moved", { base_model_name_or_path: "gone/model/here" });
    const { code, stderr } = await lowrankHere(["generate", "--model", model, "--adapter", moved, ...prompt, "--device", "cpu"]);
    expect(code, stderr).toBe(0);
    expect(stderr).not.toContain("the base is");
  });

  test("is here under the name that the adapter has, with its revision of a hub or without", async () => {
    const revised = renamed("revised", { revision: "main" });
    const { code, stderr } = await lowrankHere([
      "generate",
      "--adapter",
      revised,
      "--adapter",
      run,
      ...prompt,
      ...prompt,
      "--device",
      "cpu",
    ]);
    expect(code, stderr).toBe(0);
  });

  const refused: readonly (readonly [name: string, args: () => readonly string[], says: RegExp])[] = [
    ["that is missing", () => [], /--model is missing\. Add --model DIR, or --adapter with an adapter that names its base/],
    [
      "of a folder that is none",
      () => ["--adapter", model],
      /there is no adapter_config\.json, which would say .* or add --model with its base/,
    ],
    [
      "that it does not name",
      () => ["--adapter", renamed("baseless", { base_model_name_or_path: null })],
      /baseless: the adapter does not say which model it is for\. Add --model/,
    ],
    [
      "that is gone",
      () => ["--adapter", renamed("orphan", { base_model_name_or_path: "gone/model/here" })],
      /is an adapter for "gone\/model\/here", which cannot be opened.* Add --model with its base/,
    ],
    [
      "that two name otherwise",
      () => ["--adapter", run, "--adapter", renamed("other", { base_model_name_or_path: "gone/model/here" }), "--prompt", "b"],
      /The adapters name several bases: .*, gone\/model\/here\. Add --model/,
    ],
  ];
  test.each(refused)("%s ends with 2 and a sentence", async (_, args, says) => {
    const { code, stderr } = await lowrankHere(["generate", "--prompt", "a", ...args(), "--device", "cpu"]);
    expect([code, stderr]).toEqual([2, expect.stringMatching(says)]);
  });
});

test("cards of merged and exported models have no path of this machine", () => {
  for (const name of ["merged", "whole"]) {
    const path = join(at(name), "README.md");
    expect(existsSync(path)).toBe(true);
    const card = readFileSync(path, "utf8");
    expect(card).not.toContain(folder);
    expect(card).toContain("`model`");
  }
  expect(readFileSync(join(at("merged"), "README.md"), "utf8")).toContain("with the adapter `run` merged");
});
