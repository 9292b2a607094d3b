import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { afterAll, describe, expect, test } from "vitest";
import { cachedProgram, codeFolder } from "../src/code-cache.js";

const root = mkdtempSync(join(tmpdir(), "lowrank-code-"));
afterAll(() => rmSync(root, { recursive: true }));

const dayMs = 86_400_000;
const text = (answer: string): string =>
  `(function () { return { early: () => "${answer}", late: (x) => { let sum = 0; for (let i = 0; i < x; i++) sum += i; return sum; } }; })`;

/** A program in a folder of its own, with an empty cache. */
function programIn(name: string): {
  readonly path: string;
  readonly folder: string;
  open(): ReturnType<typeof cachedProgram>;
  files(): string[];
} {
  const path = join(root, `${name}.cjs`);
  const folder = join(root, name, "lowrank", "code"); // of which nothing is there yet
  writeFileSync(path, text("one"));
  return {
    path,
    folder,
    open: () => cachedProgram({ path, use: "train", folder }),
    files: () => (existsSync(folder) ? readdirSync(folder) : []),
  };
}

const run = ({ script }: ReturnType<typeof cachedProgram>): { early(): string; late(x: number): number } => script.runInThisContext()();

test("what V8 compiled in one use is there for the next, functions that are compiled when they are called included", () => {
  const { open, folder, files } = programIn("next");
  const first = open();
  expect(first.isCached).toBe(false);
  expect(run(first).late(4)).toBe(6);
  expect(first.keep()).toBe(true);
  const [name = ""] = files();
  const withLate = statSync(join(folder, name)).size;
  expect(statSync(folder).mode & 0o077).toBe(0);

  const second = open();
  expect(second.isCached).toBe(true);
  expect(run(second).late(4)).toBe(6);
  expect(second.keep()).toBe(false);

  // Another file: V8 knows what it compiled of this one.
  const other = programIn("less");
  const without = other.open();
  run(without);
  expect(without.keep()).toBe(true);
  expect(statSync(join(other.folder, other.files()[0] ?? "")).size).toBeLessThan(withLate);
});

describe("a file that does not hold this program's code counts as none, and is written anew:", () => {
  const damages: Readonly<Record<string, (file: string, path: string) => void>> = {
    "cut short": (file) => truncateSync(file, statSync(file).size - 1),
    "of a few bytes": (file) => truncateSync(file, 5),
    empty: (file) => truncateSync(file),
    "with another byte in V8's header": (file) => flip(file, 40),
    "with another byte in the code": (file) => flip(file, statSync(file).size - 9),
    "with another digest": (file) => flip(file, 0),
    "of another program of the same length": (_file, path) => writeFileSync(path, text("two")),
  };
  test.each(Object.entries(damages))("%s", (name, damage) => {
    const { open, path, folder, files } = programIn(name.replaceAll(/\W/g, "-"));
    const first = open();
    run(first);
    first.keep();
    const file = join(folder, files()[0] ?? "");
    damage(file, path);
    const again = open();
    expect(again.isCached).toBe(false);
    expect(run(again).early()).toBe(readFileSync(path, "utf8").includes("two") ? "two" : "one");
    expect(again.keep()).toBe(true);
    expect(open().isCached).toBe(true);
    expect(files()).toHaveLength(1);
  });
});

function flip(file: string, at: number): void {
  const bytes = readFileSync(file);
  bytes[at] = 255 - (bytes[at] ?? 0);
  writeFileSync(file, bytes);
}

describe("there is no cache, and no error, where the folder is", () => {
  const inFile = join(root, "file");
  writeFileSync(inFile, "");
  test.each(
    Object.entries({ "in a file": join(inFile, "code"), "on a file system that takes none": "/proc/lowrank/code", "not given": null }),
  )("%s", (name, folder) => {
    const { path } = programIn(`none-${name.replaceAll(" ", "-")}`);
    const program = cachedProgram({ path, use: "train", folder });
    expect(program.isCached).toBe(false);
    expect(run(program).early()).toBe("one");
    expect(program.keep()).toBe(false);
  });
  test("at a folder where the file should be", () => {
    const { open, folder, files } = programIn("folder");
    const first = open();
    first.keep();
    const file = join(folder, files()[0] ?? "");
    rmSync(file);
    mkdirSync(file);
    const program = open();
    expect(run(program).early()).toBe("one");
    expect(program.keep()).toBe(false);
    expect(files()).toHaveLength(1);
  });
});

test("a file is written anew after a day, and what nobody has written for thirty days goes", () => {
  const { open, folder, files } = programIn("days");
  open().keep();
  const file = join(folder, files()[0] ?? "");
  const old = join(folder, "merge-0123456789abcdef");
  writeFileSync(old, "");
  const before = (days: number): Date => new Date(Date.now() - days * dayMs);
  utimesSync(old, before(31), before(31));
  utimesSync(file, before(2), before(2));
  const program = open();
  expect(program.isCached).toBe(true);
  expect(program.keep()).toBe(true);
  expect(program.keep()).toBe(false);
  expect(Date.now() - statSync(file).mtimeMs).toBeLessThan(dayMs);
  expect(existsSync(old)).toBe(false);
});

test("code of other flags lies in a file of its own, and none is kept where flags were set in between", () => {
  const { open, files } = programIn("flags");
  open().keep();
  const between = open();
  rmSync(join(root, "flags"), { recursive: true });
  setFlagsFromString("--interrupt-budget=70001");
  try {
    expect(between.keep()).toBe(false);
    const other = open();
    expect(other.isCached).toBe(false);
    expect(other.keep()).toBe(true);
    expect(open().isCached).toBe(true);
  } finally {
    setFlagsFromString("--interrupt-budget=67584");
  }
  open().keep();
  expect(files()).toHaveLength(2);
});

test("the folder is in the user's cache, and there is none where Node's own is turned off", () => {
  expect(codeFolder({ XDG_CACHE_HOME: "/a" })).toBe(join("/a", "lowrank", "code"));
  expect(codeFolder({})).toMatch(/\.cache.lowrank.code$/);
  expect(codeFolder({ XDG_CACHE_HOME: "/a", NODE_DISABLE_COMPILE_CACHE: "1" })).toBe(null);
});
