// What a command waits for before its own thread starts.
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

/** What a source file imports to run. */
function importsOf(path: string): string[] {
  return [...readFileSync(path, "utf8").matchAll(/^(?:import|export) (?!type\b)(?:[^;]*? from )?"([^"]+)";/gm)].map(
    ([, from = ""]) => from,
  );
}

test("the thread that only waits loads no package, which would keep the other from starting", () => {
  const files = new Set([fileURLToPath(new URL("../src/main.ts", import.meta.url))]);
  for (const file of files) {
    for (const from of importsOf(file)) {
      if (from.startsWith("node:")) continue;
      expect(from, `${file} imports ${from}`).toMatch(/^\.\.?\//);
      const path = join(dirname(file), from.replace(/\.js$/, ".ts"));
      expect(existsSync(path), path).toBe(true);
      files.add(path);
    }
  }
  expect(files.size).toBeGreaterThan(6);
});
