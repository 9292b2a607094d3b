import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Who may import whom: down, never up or sideways. */
const mayImport = {
  "packages/tensor": [],
  "packages/autograd": ["@lowrank/tensor"],
  "packages/lora": ["@lowrank/autograd", "@lowrank/tensor"],
  "packages/models": ["@lowrank/autograd", "@lowrank/tensor"],
  "apps/cli": ["@lowrank/autograd", "@lowrank/lora", "@lowrank/models", "@lowrank/tensor"],
  "apps/bench": ["@lowrank/autograd", "@lowrank/lora", "@lowrank/models", "@lowrank/tensor"],
} as const satisfies Record<string, readonly string[]>;

interface Import {
  readonly file: string;
  readonly from: string;
}

/** Static, dynamic, re-exported and type imports of every source file below a folder. */
function importsOf(folder: string): readonly Import[] {
  const files = readdirSync(join(root, folder, "src"), { recursive: true, encoding: "utf8" }).filter((name) => /\.m?ts$/.test(name));
  return files.flatMap((name) => {
    const text = withoutComments(readFileSync(join(root, folder, "src", name), "utf8"));
    const statements = text.matchAll(/^(?:import|export)\s(?:[^;'"]*?\sfrom\s*)?["']([^"'\n]+)["']|\bimport\(\s*["']([^"'\n]+)["']/gm);
    const specifiers = [...statements].map((match) => match[1] ?? match[2] ?? "");
    return specifiers.map((from) => ({ file: name, from }));
  });
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "$1");
}

/** Node entries are files named node.ts, and whatever lies in a folder named node. */
function isNodeEntry(file: string): boolean {
  const parts = file.split(sep);
  return parts.at(-1) === "node.ts" || parts.slice(0, -1).includes("node");
}

/** The source file that a relative import names. */
function target({ file, from }: Import): string {
  return join(file, "..", from).replace(/\.js$/, ".ts");
}

/** All files that index.ts reaches, itself included. */
function reachedFromIndex(imports: readonly Import[]): ReadonlySet<string> {
  const reached = new Set(["index.ts"]);
  for (const file of reached) {
    for (const found of imports) if (found.file === file && found.from.startsWith(".")) reached.add(target(found));
  }
  return reached;
}

/** The folder that a file lies in; a file beside the folders, as index.ts, stands for itself. */
function folderOf(file: string): string {
  return file.includes(sep) ? join(file, "..") : file;
}

/** Each folder that imports itself through others, with an import that leads there. */
function circles(imports: readonly Import[]): string[] {
  const next = new Map<string, Map<string, Import>>();
  for (const found of imports) {
    if (!found.from.startsWith(".")) continue;
    const [from, to] = [folderOf(found.file), folderOf(target(found))];
    if (from !== to) next.set(from, (next.get(from) ?? new Map()).set(to, found));
  }
  const reaches = (start: string, goal: string): boolean => {
    const reached = new Set([start]);
    for (const folder of reached) for (const to of next.get(folder)?.keys() ?? []) reached.add(to);
    return start !== goal && reached.has(goal);
  };
  return [...next].flatMap(([from, found]) =>
    [...found]
      // Files beside the folders may know each other, as files within a folder may.
      .filter(([to]) => !(from.endsWith(".ts") && to.endsWith(".ts")) && reaches(to, from))
      .map(([, found]) => say(found)),
  );
}

const say = ({ file, from }: Import): string => `src/${file} imports ${from}`;

test("a circle across folders is found, through others and through types; one within a folder is none", () => {
  const of = (...pairs: readonly (readonly [string, string])[]): readonly Import[] => pairs.map(([file, from]) => ({ file, from }));
  expect(circles(of(["a/x.ts", "../b/y.js"], ["b/y.ts", "../c/z.js"], ["c/z.ts", "../main.js"], ["main.ts", "./a/w.js"]))).toHaveLength(4);
  expect(
    circles(of(["a/x.ts", "../b/y.js"], ["a/x.ts", "./z.js"], ["a/z.ts", "./x.js"], ["one.ts", "./two.js"], ["two.ts", "./one.js"])),
  ).toEqual([]);
});

for (const [folder, allowed] of Object.entries(mayImport)) {
  if (!existsSync(join(root, folder, "src"))) continue;
  describe(folder, () => {
    const imports = importsOf(folder);
    type Names = Record<string, string>;
    const manifest: { private?: boolean; dependencies?: Names; peerDependencies?: Names; devDependencies?: Names } = JSON.parse(
      readFileSync(join(root, folder, "package.json"), "utf8"),
    );

    test("imports only the packages below it", () => {
      const wrong = imports.filter(({ from }) => from.startsWith("@lowrank/") && !(allowed as readonly string[]).includes(from));
      expect(wrong.map(say)).toEqual([]);
    });

    test("has no circle of imports across its folders", () => expect(circles(imports)).toEqual([]));

    test("reaches into no other package by path", () => {
      const inside = imports.filter(({ file, from }) => {
        if (!from.startsWith(".")) return false;
        return relative(join(root, folder), join(root, folder, "src", file, "..", from)).startsWith("..");
      });
      expect(inside.map(say)).toEqual([]);
    });

    test("declares every package that it imports", () => {
      // What is never published may count on what only the repository installs.
      const own = manifest.private === true ? manifest.devDependencies : {};
      const declared = [manifest.dependencies, manifest.peerDependencies, own].flatMap((names) => Object.keys(names ?? {}));
      const bare = imports.filter(({ from }) => !from.startsWith(".") && !from.startsWith("node:"));
      const undeclared = bare.filter(({ from }) => !declared.some((name) => from === name || from.startsWith(`${name}/`)));
      expect(undeclared.map(say)).toEqual([]);
    });

    test.skipIf(folder.startsWith("apps/"))("runs in a browser: node: is imported by node entries only", () => {
      const wrong = imports.filter(({ file, from }) => from.startsWith("node:") && !isNodeEntry(file));
      expect(wrong.map(say)).toEqual([]);
    });

    test.skipIf(folder.startsWith("apps/"))("index.ts, which a browser loads, reaches no file that imports node:", () => {
      const reached = reachedFromIndex(imports);
      expect(imports.filter(({ file, from }) => from.startsWith("node:") && reached.has(file)).map(say)).toEqual([]);
    });
  });
}
