import { readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lowrankHere, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model, train } = await tinyProject(folder, { layers: 1 });
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const data = join(folder, "rows.jsonl");
const out = join(folder, "study");
const rows = readFileSync(train, "utf8");
const args = (places: { readonly model?: string; readonly data?: string } = {}): string[] => [
  ...["rank-study", "--model", places.model ?? model, "--data", places.data ?? data, "--ranks", "1", "--targets-sets", "q"],
  ...["--steps", "2", "--eval-rows", "4", "--device", "cpu", "--out", out],
];

beforeAll(async () => {
  writeFileSync(data, rows);
  const { code, stderr } = await lowrankHere(args(), { stopAt: "1 of 2" });
  expect(code, stderr).toBe(130);
});

/** Whether the study is refused, and with which words; what is left of it is not trained. */
async function refused(places: { readonly model?: string; readonly data?: string } = {}): Promise<string | null> {
  const { code, stderr, stdout } = await lowrankHere(args(places), { stopAt: "device: " });
  expect([2, 130], stdout + stderr).toContain(code);
  return code === 2 ? stderr : null;
}

describe("a folder of many runs is resumed", () => {
  test("from another path to the same places", async () => {
    expect(await refused({ model: relative(process.cwd(), model), data: relative(process.cwd(), data) })).toBeNull();
    const link = join(folder, "link");
    symlinkSync(model, link);
    expect(await refused({ model: link })).toBeNull();
  });

  test("not on other rows in the same place", async () => {
    const lines = rows.trim().split("\n");
    try {
      writeFileSync(data, `${lines.reverse().join("\n")}\n`);
      expect(await refused()).toContain("the rows of --data changed");
    } finally {
      writeFileSync(data, rows);
    }
  });

  test("when its settings are from before contents were compared, and not when they are damaged", async () => {
    const path = join(out, "settings.json");
    const text = readFileSync(path, "utf8");
    try {
      writeFileSync(path, JSON.stringify((JSON.parse(text) as { settings: object }).settings));
      expect(await refused()).toBeNull();
      for (const wrong of ["[]", "3", '{"settings":{"a":{}}}', '{"settings":3,"hashes":{}}', '{"toString":{}}']) {
        writeFileSync(path, wrong);
        expect(await refused()).toContain("does not hold the settings of runs");
      }
    } finally {
      writeFileSync(path, text);
    }
  });
});
