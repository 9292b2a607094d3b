// Slow: the whole quickstart, as a new user runs it.
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { lowrank, scratchFolder } from "./cli.js";

const folder = scratchFolder();
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("quickstart teaches the shipped model the task: below 5 % before, at least 90 % after, within 90 seconds of training", async () => {
  const out = join(folder, "out");
  const { code, stdout, stderr } = await lowrank(["quickstart", "--out", out, "--json"]);
  expect(code, stderr).toBe(0);
  const result = JSON.parse(stdout) as Record<string, number | boolean>;
  expect(result).toMatchObject({ mergedTextEqual: true, trainable: expect.any(Number), frozen: expect.any(Number) });
  expect(result["exactMatchBefore"]).toBeLessThan(0.05);
  expect(result["exactMatchAfter"]).toBeGreaterThanOrEqual(0.9);
  expect(result["trainSeconds"]).toBeLessThanOrEqual(90);
  expect(readdirSync(join(out, "adapter")).sort()).toEqual(["adapter_config.json", "adapter_model.safetensors"]);
  expect(readdirSync(join(out, "merged"))).toContain("model.safetensors");
});
