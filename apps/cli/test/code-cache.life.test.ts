import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { lowrank, type Outcome, scratchFolder } from "./cli.js";

const scratch = scratchFolder();
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const model = fileURLToPath(new URL("../assets/base-model/model", import.meta.url));
const data = join(scratch, "rows.csv");
writeFileSync(data, 'prompt,completion\nWhere is the café?,"In Lyon, by the river."\n');

/** `lowrank data preview` of a file of CSV, for which a package is loaded that is not in the bundle. */
const command = (cache: string, ...more: string[]): Promise<Outcome> =>
  lowrank(["data", "preview", data, "--model", model, ...more], { env: { XDG_CACHE_HOME: cache, NODE_DISABLE_COMPILE_CACHE: undefined } });

const codeIn = (cache: string): string[] => readdirSync(join(cache, "lowrank", "code")).map((name) => join(cache, "lowrank", "code", name));

test("a command leaves its code for the next, which takes it, and takes none that is damaged", async () => {
  const cache = join(scratch, "cache");
  mkdirSync(cache);
  expect((await command(cache, "--help")).code).toBe(0);
  expect((await command(cache, "--no-such-flag")).code).toBe(2);
  expect(readdirSync(cache)).toEqual([]);

  const first = await command(cache);
  expect(first.code, first.stderr).toBe(0);
  expect(first.stdout).toContain("café");
  const [file = "", ...others] = codeIn(cache);
  expect(others).toEqual([]);
  const written = statSync(file).mtimeMs;

  // What V8 refuses is written anew.
  expect(await command(cache)).toEqual(first);
  expect(statSync(file).mtimeMs).toBe(written);

  const bytes = readFileSync(file);
  writeFileSync(
    file,
    bytes.map((byte, at) => (at > bytes.length / 2 ? byte ^ 0x55 : byte)),
  );
  const damaged = readFileSync(file);
  expect(await command(cache)).toEqual(first);
  expect(readFileSync(file).equals(damaged)).toBe(false);
  expect(await command(cache)).toEqual(first);
  expect(codeIn(cache)).toEqual([file]);
});

test("commands that start at once share a cache, and where none can be written they run without", async () => {
  const cache = join(scratch, "shared");
  mkdirSync(cache);
  const inFile = join(scratch, "file");
  writeFileSync(inFile, "");
  const outcomes = await Promise.all([cache, cache, cache, inFile, "/proc/none"].map((folder) => command(folder)));
  for (const { code, stdout, stderr } of outcomes) {
    expect(code, stderr).toBe(0);
    expect(stdout).toContain("café");
    expect(stderr).toBe("");
  }
  expect(codeIn(cache)).toHaveLength(1);
});
