import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseSync } from "vite";
import { describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Lines of a function that need no reason. */
const limit = 80;

interface FunctionLength {
  readonly name: string;
  /** From 1. */
  readonly line: number;
  readonly lineCount: number;
  /** What a comment right above it says after "Long:"; null where it says nothing. */
  readonly reason: string | null;
}

/** Every function of a source text that is longer than the limit: declarations, methods and function expressions. */
function longFunctions(path: string, text: string): readonly FunctionLength[] {
  const { program, errors } = parseSync(path, text, { lang: "ts" });
  if (errors.length > 0) throw new Error(`${path}: ${errors[0]?.message}`);
  const lines = text.split("\n");
  const starts = lines.map(
    ((offset) => (line) => {
      const start = offset;
      offset += line.length + 1;
      return start;
    })(0),
  );
  const lineAt = (offset: number): number => starts.findLastIndex((start) => start <= offset) + 1;
  const found: FunctionLength[] = [];
  const visit = (value: unknown, name: string): void => {
    if (Array.isArray(value)) for (const item of value) visit(item, name);
    if (!isNode(value)) return;
    const own = nameOf(value) ?? name;
    if (["FunctionDeclaration", "FunctionExpression", "ArrowFunctionExpression"].includes(value.type)) {
      const [line, last] = [lineAt(value.start), lineAt(value.end)];
      if (last - line + 1 > limit) found.push({ name: own, line, lineCount: last - line + 1, reason: reasonAbove(lines, line) });
    }
    for (const child of Object.values(value)) visit(child, own);
  };
  visit(program, "(anonymous)");
  return found;
}

interface SyntaxNode {
  readonly type: string;
  readonly start: number;
  readonly end: number;
}

function isNode(value: unknown): value is SyntaxNode {
  return typeof value === "object" && value !== null && "type" in value && typeof value.type === "string" && "end" in value;
}

/** The name that a declaration, a variable or a property gives to what is in it. */
function nameOf(node: object): string | null {
  for (const naming of [Reflect.get(node, "id"), Reflect.get(node, "key")]) {
    if (isNode(naming) && "name" in naming && typeof naming.name === "string") return naming.name;
  }
  return null;
}

/** The text after "Long:" in the comment lines that end above a line, which counts from 1. */
function reasonAbove(lines: readonly string[], line: number): string | null {
  const above = lines.slice(0, line - 1);
  const first = above.findLastIndex((text) => !/^\s*(\/\/|\/\*\*|\*)/.test(text)) + 1;
  return /\bLong: (\S.*)/.exec(above.slice(first).join(" "))?.[1] ?? null;
}

describe("the check of lengths", () => {
  const body = (count: number): string => "  f();\n".repeat(count);
  const cases: readonly [name: string, text: string, expected: readonly (readonly [string, string | null])[]][] = [
    ["80 lines pass", `function a() {\n${body(78)}}`, []],
    ["81 lines are named", `function a() {\n${body(79)}}`, [["a", null]]],
    ["a method is one", `class C {\n  b() {\n${body(90)}  }\n}`, [["b", null]]],
    ["an arrow function has its variable's name", `const c = () => {\n${body(90)}};`, [["c", null]]],
    ["a reason is read from the comment above", `/** Does d. Long: a table. */\nfunction d() {\n${body(90)}}`, [["d", "a table. */"]]],
    ["a reason further up is none", `// Long: a table.\nconst x = 1;\nfunction d() {\n${body(90)}}`, [["d", null]]],
    [
      "two functions on one another's lines are two",
      `function a() {\n${body(79)}  const b = () => {\n${body(90)}  };\n}`,
      [
        ["a", null],
        ["b", null],
      ],
    ],
  ];
  test.each(cases)("%s", (_, text, expected) => {
    expect(longFunctions("test.ts", text).map(({ name, reason }) => [name, reason])).toEqual(expected);
  });
});

describe.each(readdirSync(join(root, "packages")))("packages/%s", (name) => {
  test(`no function is longer than ${limit} lines without a reason beside it ("Long: …" in the comment above)`, () => {
    const folder = join(root, "packages", name, "src");
    const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));
    const wrong = files.flatMap((file) =>
      longFunctions(file, readFileSync(join(folder, file), "utf8"))
        .filter(({ reason }) => reason === null)
        .map(({ name: own, line, lineCount }) => `src/${file}:${line} ${own}: ${lineCount} lines`),
    );
    expect(wrong).toEqual([]);
  });
});
