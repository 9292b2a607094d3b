// The folder of SmolLM2-135M-Instruct in bfloat16, a real model for tests and benchmarks.
//
//   node scripts/smollm2.mjs                      makes it where it is not there yet, and prints where it is
//   import { smollm2Folder } from "./smollm2.mjs"
//
// `$LOWRANK_SMOLLM2` names one that is there; else `shared/models/smollm2-135m/to_huggingface.py` makes it of the GGUF beside it, once, with a
// Python that has `gguf`.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "./prepare.mjs";

const cache = join(root, "node_modules", ".cache", "lowrank");

/** @returns {{ readonly path: string } | { readonly skipped: string }} */
export function smollm2Folder() {
  const given = process.env["LOWRANK_SMOLLM2"];
  if (given !== undefined) return { path: given };
  const folder = join(cache, "smollm2-135m");
  if (existsSync(folder)) return { path: folder };
  const source = join(process.env["LOWRANK_SHARED"] ?? resolve(root, "../shared"), "models", "smollm2-135m");
  if (!existsSync(source))
    return {
      skipped: "no shared/models/smollm2-135m beside this clone (LOWRANK_SHARED names another place, LOWRANK_SMOLLM2 the folder itself)",
    };
  const pythons = [process.env["LOWRANK_PYTHON"], join(cache, "python", "bin", "python"), "python3"];
  const python = pythons.find((path) => path !== undefined && hasGguf(path));
  if (python === undefined)
    return {
      skipped: "no Python with gguf makes the folder of SmolLM2-135M (LOWRANK_PYTHON names one, LOWRANK_SMOLLM2 the folder itself)",
    };
  const own = `${folder}-${process.pid}`;
  mkdirSync(cache, { recursive: true });
  execFileSync(python, [join(source, "to_huggingface.py"), own], { stdio: "ignore" });
  try {
    renameSync(own, folder);
  } catch (error) {
    // Another process was as quick.
    if (!existsSync(folder)) throw error;
    rmSync(own, { recursive: true, force: true });
  }
  return { path: folder };
}

/** @param {string} python */
function hasGguf(python) {
  try {
    execFileSync(python, ["-c", "import gguf, numpy"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const found = smollm2Folder();
  if ("path" in found) console.log(found.path);
  else {
    console.error(found.skipped);
    process.exitCode = 3;
  }
}
