import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));

// Each ends before it prepares anything.
test.each([
  ["torture", ["--only", "a", "b"], "Unexpected argument 'b'. Usage: npm run torture -- [--kills N]"],
  ["torture", ["--kills"], "Option '--kills <value>' argument missing. Usage: npm run torture -- [--kills N]"],
  ["torture", ["--kills", "some"], "some is not a whole number. Usage: npm run torture -- [--kills N]"],
  ["fuzz", ["--only", "config", "rows"], "Unexpected argument 'rows'. Usage: npm run fuzz -- [--minutes N]"],
  ["fuzz", ["--hours", "3"], "Unknown option '--hours'. Usage: npm run fuzz -- [--minutes N]"],
  ["fuzz", ["--only", "x"], "--only x: there is no such reader. Usage: npm run fuzz -- [--minutes N]"],
  ["defaults", ["orders"], "Unexpected argument 'orders'. Usage: node scripts/defaults.mjs [--model NAME=DIR]"],
])("%s %j says what it does not understand, and ends with 2", (name, args, says) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [`scripts/${name}.mjs`, ...args], { cwd: root, encoding: "utf8" });
  expect(stderr.slice(0, says.length)).toBe(says);
  expect(stderr.trim().split("\n")).toHaveLength(1);
  expect([status, stdout]).toEqual([2, ""]);
});
