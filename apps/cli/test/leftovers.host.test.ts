import { mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Leftover, removeLeftovers } from "../src/leftovers.js";

let folder = "";
beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "lowrank-leftovers-")));
  mkdirSync(join(folder, "out", "deep"), { recursive: true });
  for (const name of ["out/old.json", "out/new.json", "out/.model.safetensors.0a1b.tmp", "out/deep/x", "lock"])
    writeFileSync(join(folder, name), "x");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const rows: readonly (readonly [name: string, leftover: Leftover, left: readonly string[]])[] = [
  [
    "a file goes",
    { what: "file", path: "lock" },
    ["out", "out/.model.safetensors.0a1b.tmp", "out/deep", "out/deep/x", "out/new.json", "out/old.json"],
  ],
  [
    "temporary files of a folder go",
    { what: "temporaries", path: "out" },
    ["lock", "out", "out/deep", "out/deep/x", "out/new.json", "out/old.json"],
  ],
  [
    "what a folder did not hold before goes",
    { what: "contents", path: "out", kept: ["old.json"], wasThere: true },
    ["lock", "out", "out/old.json"],
  ],
  ["a folder that was not there goes whole", { what: "contents", path: "out", kept: [], wasThere: false }, ["lock"]],
  [
    "what is not there is no matter",
    { what: "contents", path: "absent", kept: [], wasThere: false },
    ["lock", "out", "out/.model.safetensors.0a1b.tmp", "out/deep", "out/deep/x", "out/new.json", "out/old.json"],
  ],
];
test.each(rows)("%s", (_, leftover, left) => {
  removeLeftovers([{ ...leftover, path: join(folder, leftover.path) }]);
  expect((readdirSync(folder, { recursive: true }) as string[]).sort()).toEqual(left);
});
