import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const page = readFileSync(join(root, "docs", "architecture.md"), "utf8");

/** Files that a line of a picture, or a sentence, names; those after the first without a folder lie beside it. */
function filesNamed(line: string): string[] {
  let folder = "";
  return [...line.matchAll(/(?:<b>|`)([\w/.-]+\.ts)(?:<\/b>|`)/g)].map(([, name = ""]) => {
    if (name.includes("/")) folder = dirname(name);
    return name.includes("/") ? name : join(folder, name);
  });
}

test("every file that docs/architecture.md names is there", () => {
  const names = page.split("\n").flatMap(filesNamed);
  expect(names.length).toBeGreaterThan(30);
  expect(names.filter((name) => !existsSync(join(root, "packages", "tensor", "src", name)))).toEqual([]);
});

/** The files that a diff of CONTRIBUTING.md changes, with the lines that it says are there, in order. */
function contexts(): { readonly path: string; readonly lines: readonly string[] }[] {
  const text = readFileSync(join(root, "CONTRIBUTING.md"), "utf8");
  return [...text.matchAll(/```diff\n(.*?)```/gs)].flatMap(([, diff = ""]) =>
    diff
      .split(/^--- a\//m)
      .slice(1)
      .map((part) => {
        const [path = "", ...lines] = part.split("\n");
        return { path, lines: lines.filter((line) => line.startsWith(" ")).map((line) => line.slice(1)) };
      }),
  );
}

describe("a diff of CONTRIBUTING.md", () => {
  test("is there for an op, a method, a model, a way to store weights, a way out and a command", () => {
    expect(contexts().map(({ path }) => path)).toEqual([
      "packages/tensor/src/ops/activation.ts",
      "packages/tensor/test/graphs.ts",
      "packages/tensor/src/blocks/legacy.ts",
      "packages/models/src/checkpoint/packed/table.ts",
      "packages/lora/src/methods/all.ts",
      "packages/models/src/families/table.ts",
      "apps/cli/src/export/table.ts",
      "apps/cli/src/commands/table.ts",
    ]);
  });
  test.each(contexts())("applies to $path", ({ path, lines }) => {
    const found = readFileSync(join(root, path), "utf8").split("\n");
    const places = lines.map((line) => found.indexOf(line));
    expect(places, lines.join("\n")).not.toContain(-1);
    expect(places).toEqual([...places].sort((a, b) => a - b));
  });
});

describe("a model family", () => {
  const folder = join(root, "packages/models/src/families");
  const read = (name: string): string => readFileSync(join(folder, name), "utf8");
  const names = readdirSync(folder).filter((name) => name.endsWith(".ts") && /export const \w+: Family = /.test(read(name)));
  /** Those of several kinds of mixers, embeddings or experts, with fields for each. */
  const longer = ["falcon-h1.ts", "gemma3n.ts", "gemma4.ts", "granitemoehybrid.ts", "nemotron-h.ts"];
  test("is a file of about 100 lines at most, and one like Qwen2 of at most 60", () => {
    expect(names.length).toBeGreaterThan(10);
    expect(names.filter((name) => read(name).split("\n").length > 111 && !longer.includes(name))).toEqual([]);
    expect(read("qwen2.ts").split("\n").length).toBeLessThan(60);
  });
  test("is shown in CONTRIBUTING.md as it is", () => {
    const text = read("qwen2.ts");
    expect(readFileSync(join(root, "CONTRIBUTING.md"), "utf8")).toContain(text.slice(text.indexOf("/** Qwen2")));
  });
  test("is named nowhere else in the package", () => {
    const words = new RegExp(`["'.](${names.map((name) => name.slice(0, -3).replaceAll("-", "_")).join("|")})["'.]`);
    // GGUF calls kinds of tokenizers by the names of the models that were the first to have them.
    const files = readdirSync(join(folder, ".."), { recursive: true, encoding: "utf8" }).filter(
      (name) => name.endsWith(".ts") && !name.startsWith("families") && !name.startsWith(join("tokenizer", "gguf")),
    );
    expect(files.filter((name) => words.test(readFileSync(join(folder, "..", name), "utf8")))).toEqual([]);
  });
});
