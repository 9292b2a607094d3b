// Slow: npm installs each package in an empty folder.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { codeBlocks, execute, runBlock } from "../scripts/blocks.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Each package, with the workspace packages that it stands on. */
const packages = [
  { folder: "packages/tensor", needs: ["tensor"] },
  { folder: "packages/autograd", needs: ["tensor", "autograd"] },
  { folder: "packages/lora", needs: ["tensor", "autograd", "lora"] },
  { folder: "packages/models", needs: ["tensor", "autograd", "models"] },
  { folder: "apps/cli", needs: ["tensor", "autograd", "lora", "models", "cli"] },
] as const;

const scratch = realpathSync(mkdtempSync(join(tmpdir(), "lowrank-pack-")));
const tarballs = new Map<string, string>();
const quiet = ["--no-audit", "--no-fund", "--loglevel=error"];

async function succeed(command: string, args: readonly string[], folder: string): Promise<string> {
  const { code, stdout, all } = await execute(command, args, folder);
  if (code !== 0) throw new Error(`${command} ${args.join(" ")}: exit status ${code}\n${all}`);
  return stdout;
}

beforeAll(async () => {
  for (const { folder } of packages) {
    const name = folder.replace(/^.*\//, "");
    const target = join(scratch, "tarballs", name);
    mkdirSync(target, { recursive: true });
    await succeed("npm", ["pack", "--ignore-scripts", "--pack-destination", target, ...quiet], join(root, folder));
    tarballs.set(name, join(target, readdirSync(target)[0] ?? ""));
  }
}, 120_000);

afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe.each(packages)("$folder", ({ folder, needs }) => {
  const name = folder.replace(/^.*\//, "");

  test("installs alone in an empty folder and runs the examples of its README", async () => {
    const empty = join(scratch, `alone-${name}`);
    mkdirSync(empty);
    writeFileSync(join(empty, "package.json"), JSON.stringify({ private: true, type: "module" }));
    const files = needs.map((need) => tarballs.get(need) ?? "");
    await succeed("npm", ["install", "--prefer-offline", "--ignore-scripts", "--omit=peer", ...quiet, ...files], empty);
    const blocks = codeBlocks(readFileSync(join(root, folder, "README.md"), "utf8"));
    expect(blocks.some((block) => block.kind !== "file")).toBe(true);
    for (const block of blocks) {
      expect(await runBlock(block, empty), `README.md:${block.line}`).toBeNull();
    }
  });

  test("holds its build and its README, and nothing of the tests", async () => {
    const files = (await succeed("tar", ["-tzf", tarballs.get(name) ?? ""], scratch)).trim().split("\n");
    expect(files).toContain("package/README.md");
    expect(files).toContain("package/dist/index.js");
    expect(files).toContain("package/dist/index.d.ts");
    expect(files.filter((file) => /\.test\.|tsbuildinfo/.test(file))).toEqual([]);
  });

  test("publint finds nothing", async () => {
    await succeed(join(root, "node_modules", ".bin", "publint"), ["--strict", tarballs.get(name) ?? ""], root);
  });

  test("are-the-types-wrong finds nothing", async () => {
    // esm-only: CommonJS callers reach an ES module with import() only, by choice.
    await succeed(join(root, "node_modules", ".bin", "attw"), ["--profile", "esm-only", tarballs.get(name) ?? ""], root);
  });
});
