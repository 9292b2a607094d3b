import { mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { temporaryName, temporaryNames } from "@lowrank/tensor";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type Leftover, removeLeftover } from "../src/leftovers.js";

let folder = "";
const temporary = temporaryName("model.safetensors");
const anothers = temporary.replace(String(process.pid), "1");
const all = ["out", `out/${anothers}`, `out/${temporary}`, "out/deep", "out/deep/x", "out/empty", "out/lock", "out/new.json"];
beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "lowrank-leftovers-")));
  for (const name of ["deep", "empty"]) mkdirSync(join(folder, "out", name), { recursive: true });
  for (const name of ["new.json", temporary, anothers, "deep/x", "lock"]) writeFileSync(join(folder, "out", name), "token a");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const rows: readonly (readonly [name: string, leftover: Partial<Leftover>, gone: readonly string[]])[] = [
  ["temporary files of this process go, those of another stay", { folders: ["out"] }, [`out/${temporary}`]],
  ["what is nothing unless it is whole goes", { unfinished: ["out/new.json", "out/deep"] }, ["out/deep", "out/deep/x", "out/new.json"]],
  ["the lock goes", { lock: { path: "out/lock", token: "a" } }, ["out/lock"]],
  ["a lock that is another's by now stays", { lock: { path: "out/lock", token: "b" } }, []],
  ["a folder that it made goes when it is empty", { made: ["out", "out/empty", "out/deep"] }, ["out/empty"]],
  [
    "what is not there is no matter",
    { folders: ["absent"], unfinished: ["absent"], lock: { path: "absent/lock", token: "a" }, made: ["absent"] },
    [],
  ],
];
test.each(rows)("%s", (_, given, gone) => {
  const said = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  const at = (path: string): string => join(folder, path);
  const { lock = null, folders = [], unfinished = [], made = [] } = given;
  removeLeftover({
    lock: lock && { ...lock, path: at(lock.path) },
    folders: folders.map(at),
    temporaries: temporaryNames(process.pid),
    unfinished: unfinished.map(at),
    made: made.map(at),
  });
  expect(said).not.toHaveBeenCalled();
  said.mockRestore();
  expect((readdirSync(folder, { recursive: true }) as string[]).sort()).toEqual(all.filter((name) => !gone.includes(name)).sort());
});
