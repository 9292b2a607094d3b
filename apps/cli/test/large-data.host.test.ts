import { existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { lowrankHere, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model } = await tinyProject(folder);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const many = join(folder, "many.jsonl");
writeFileSync(many, '{"prompt":"a","completion":"b"}\n'.repeat(125_000));
const trainOn = (data: string, ...extra: readonly string[]): string[] => [
  ...["train", "--model", model, "--data", data, "--out", join(folder, "out"), "--rank", "2", "--targets", "q_proj", "--device", "cpu"],
  ...extra,
];

test("train takes 125,000 rows, of which some are held out evenly", async () => {
  const { code, stdout, stderr } = await lowrankHere(trainOn(many, "--eval-data", many, "--eval-rows", "5", "--steps", "1"));
  expect(code, stderr).toBe(0);
  expect(stderr).toContain("125,000 rows, 375,000 tokens");
  expect(stderr).toContain("5 rows (5 of 125,000, evenly spread)");
  expect(stdout).toContain("1 steps of 8 rows (0.0 epochs)");
});

test("train that is stopped while it reads ends at once and leaves no folder", async () => {
  rmSync(join(folder, "out"), { recursive: true, force: true });
  const { code, stderr } = await lowrankHere(trainOn(many), { stopAt: "device: cpu" });
  expect(code).toBe(130);
  expect(stderr).toMatch(/Stopped while .*many\.jsonl was read/);
  expect(existsSync(join(folder, "out", "metrics.jsonl"))).toBe(false);
});

test("eval names the line that is not UTF-8", async () => {
  const latin = join(folder, "latin.jsonl");
  writeFileSync(latin, Buffer.from('{"text":"ok"}\n{"text":"caf\xe9"}\n', "latin1"));
  const { code, stderr } = await lowrankHere(["eval", "--model", model, "--data", latin, "--device", "cpu"]);
  expect(code).toBe(2);
  expect(stderr).toContain("latin.jsonl:2: the line is not UTF-8 text (byte 26 of the file is 0xE9). Save the file as UTF-8.");
});
