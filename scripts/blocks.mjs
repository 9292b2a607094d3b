// Code blocks of a Markdown file that promise to run:
//
//   ```sh run              a shell script; it stops at the first command that fails
//   ```ts run              a module, type-checked and then run by Node
//   ```text output         what the block before prints; "…" stands for anything within a line, a line of its own for any lines
//   ```json file=a.json    a file that the blocks after it find in their folder
import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { root } from "./prepare.mjs";

/** @typedef {{ kind: "sh" | "ts" | "file", line: number, code: string, path: string, expected: string | null }} Block */

/**
 * @param {string} markdown
 * @returns {Block[]}
 */
export function codeBlocks(markdown) {
  /** @type {Block[]} */
  const blocks = [];
  for (const match of markdown.matchAll(/^( *)```([^\n`]*)\n(.*?)^ *```\s*$/gms)) {
    const [language = "", ...marks] = (match[2] ?? "").trim().split(/\s+/);
    const code = (match[3] ?? "").replaceAll(new RegExp(`^ {0,${match[1]?.length ?? 0}}`, "gm"), "");
    const line = markdown.slice(0, match.index).split("\n").length;
    const path = marks.find((mark) => mark.startsWith("file="))?.slice("file=".length);
    const last = blocks.at(-1);
    if (marks.includes("run") && (language === "sh" || language === "ts"))
      blocks.push({ kind: language, line, code, path: "", expected: null });
    else if (path !== undefined) blocks.push({ kind: "file", line, code, path, expected: null });
    else if (marks.includes("output") && last !== undefined) last.expected = code;
  }
  return blocks;
}

/**
 * Runs a block in a folder; null where it does what it says, else what went wrong.
 * @param {Block} block
 * @param {string} folder  holds node_modules, and what earlier blocks left
 * @returns {Promise<string | null>}
 */
export async function runBlock(block, folder) {
  if (block.kind === "file") {
    mkdirSync(dirname(join(folder, block.path)), { recursive: true });
    writeFileSync(join(folder, block.path), block.code);
    return null;
  }
  const result =
    block.kind === "sh" ? await execute("bash", ["-euo", "pipefail", "-c", block.code], folder) : await runModule(block, folder);
  if (result.code !== 0) return `exit status ${result.code}\n${result.all.trimEnd()}`;
  if (block.expected !== null && !pattern(block.expected).test(result.stdout.trim())) {
    return `printed\n${result.stdout.trimEnd()}\nwhere the text says\n${block.expected.trimEnd()}`;
  }
  return null;
}

/**
 * @param {Block} block
 * @param {string} folder
 */
async function runModule(block, folder) {
  const name = `block-${block.line}`;
  const source = join(folder, `${name}.mts`);
  const config = join(folder, `${name}.tsconfig.json`);
  const nodeTypes = join(root, "node_modules", "@types");
  writeFileSync(source, block.code);
  const compilerOptions = {
    target: "ES2023",
    lib: ["ES2023", "ESNext.Disposable", "DOM"],
    module: "NodeNext",
    strict: true,
    skipLibCheck: true,
  };
  writeFileSync(
    config,
    JSON.stringify({ compilerOptions: { ...compilerOptions, typeRoots: [nodeTypes], types: ["node"] }, files: [source] }),
  );
  const checked = await execute(process.execPath, [join(root, "node_modules", "typescript", "bin", "tsc"), "-p", config], folder);
  return checked.code === 0 ? execute(process.execPath, [join(folder, `${name}.mjs`)], folder) : checked;
}

/**
 * @param {string} command
 * @param {readonly string[]} args
 * @param {string} cwd
 * @param {NodeJS.ProcessEnv} [env]
 * @returns {Promise<{ code: number, stdout: string, all: string }>}
 */
export function execute(command, args, cwd, env = process.env) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, env, stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "";
    let all = "";
    child.stdout.on("data", (chunk) => {
      stdout += chunk;
      all += chunk;
    });
    child.stderr.on("data", (chunk) => {
      all += chunk;
    });
    child.on("error", (error) => resolve({ code: 127, stdout, all: `${all}${error.message}` }));
    child.on("close", (code) => resolve({ code: code ?? 1, stdout, all }));
  });
}

/** @param {string} expected */
function pattern(expected) {
  const escaped = expected.trim().replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`^${escaped.replaceAll(/^…$/gm, "[\\s\\S]*").replaceAll("…", ".*")}$`);
}
