// llama.cpp as node-llama-cpp ships it, prebuilt: in a cache of its own outside of the repository, since it has 100 MB.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { arch, platform } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { cache } from "./python.mjs";

/** The version that the comparisons were made with. */
export const llamaCppVersion = "3.22.1";

const npm = (/** @type {string} */ cwd, /** @type {readonly string[]} */ args) =>
  execFileSync("npm", ["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", ...args], {
    cwd,
    stdio: "ignore",
    timeout: 300_000,
  });

/**
 * The module node-llama-cpp with its library for the cpu, installed into the cache where it is not there yet (LOWRANK_LLAMA_CPP: a folder that has it); a
 * reason where it cannot be.
 * @returns {Promise<{ module: any } | { reason: string }>}
 */
export async function llamaCpp() {
  const folder = process.env["LOWRANK_LLAMA_CPP"] ?? join(cache, `node-llama-cpp-${llamaCppVersion}`);
  const entry = join(folder, "node_modules", "node-llama-cpp", "dist", "index.js");
  try {
    if (!existsSync(entry)) install(folder);
    return { module: await import(pathToFileURL(entry).href) };
  } catch (error) {
    return { reason: `node-llama-cpp cannot be had (${error instanceof Error ? error.message.split("\n", 1)[0] : error})` };
  }
}

/** @param {string} folder */
function install(folder) {
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, ".fetch-"));
  try {
    // The libraries for graphics cards have 700 MB: only the one for this processor is wanted.
    npm(work, ["--omit=optional", `node-llama-cpp@${llamaCppVersion}`]);
    npm(work, [
      "--omit=optional",
      "--no-save",
      `node-llama-cpp@${llamaCppVersion}`,
      `@node-llama-cpp/${platform()}-${arch()}@${llamaCppVersion}`,
    ]);
    rmSync(folder, { recursive: true, force: true });
    renameSync(work, folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** llama.cpp on the cpu, which says nothing but what is asked of it. @param {any} module */
export function llamaOn(module) {
  return module.getLlama({ gpu: false, build: "never", skipDownload: true, logLevel: "disabled", progressLogs: false });
}
