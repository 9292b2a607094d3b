import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { methodNames } from "../apps/cli/src/method.js";
import { differenceOf, problemOf, resultOf } from "../scripts/torture/command.mjs";
import { killCases } from "../scripts/torture/kills.mjs";

const folder = mkdtempSync(join(tmpdir(), "lowrank-torture-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function run(name: string, weights: string, evalLoss: number): Record<string, string> {
  const place = join(folder, name);
  mkdirSync(join(place, "lora"), { recursive: true });
  writeFileSync(join(place, "lora", "adapter_model.safetensors"), weights);
  writeFileSync(join(place, "lora.json"), JSON.stringify({ evalLoss, stepMs: Math.random() }));
  writeFileSync(join(place, "metrics.jsonl"), `{"time":${Math.random()}}\n`);
  return resultOf(place);
}

test.each([
  ["the same weights and losses are the same, whatever the times", run("a", "w", 1), run("b", "w", 1), null],
  ["other weights differ", run("c", "v", 1), run("d", "w", 1), /^lora\/adapter_model\.safetensors is \w+ instead of \w+$/],
  ["another loss differs", run("e", "w", 2), run("f", "w", 1), /^lora\.json is 2 instead of 1$/],
  ["a missing result differs", {}, run("g", "w", 1), /is missing instead of/],
  ["two runs without a result are no success", {}, {}, /left no result/],
])("%s", (_, got, wanted, problem) => {
  if (problem === null) expect(differenceOf(got, wanted)).toBeNull();
  else expect(differenceOf(got, wanted)).toMatch(problem);
});

test.each([
  ["done", { code: 0, output: "" }, true],
  ["a typed error", { code: 2, output: "error: the disk is full. Free some space." }, true],
  ["a mistake of ours", { code: 1, output: "error: TypeError: x" }, false],
  ["a typed error with a stack", { code: 2, output: "error: x\n    at run (run.js:1:1)" }, false],
  ["an end by a signal", { code: null, output: "" }, false],
])("%s is accepted after a fault: %o", (_, { code, output }, isFine) => {
  expect(problemOf({ code, output, ms: 1, hung: false }, true) === null).toBe(isFine);
  if (code !== 0) expect(problemOf({ code, output, ms: 1, hung: false })).not.toBeNull();
});

test("every method of --method is killed", () => {
  const cases = killCases(methodNames, { model: "m", train: "t", heldOut: "h" }).map(({ args }) => args.join(" "));
  for (const name of methodNames)
    expect(
      cases.some((args) => args.includes(`--method ${name} `)),
      name,
    ).toBe(true);
});
