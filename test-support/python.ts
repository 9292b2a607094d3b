import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { skipReason } from "./shared.js";

/**
 * A Python interpreter that has torch, transformers and peft: `$LOWRANK_PYTHON`, or the one that `.ci/run` installs. Null where there is
 * none; the reason is printed once, and the test skips.
 */
export function pythonWithPeft(): string | null {
  return pythonWith("torch", "transformers", "peft", "safetensors");
}

/** Likewise one that has some packages. */
export function pythonWith(...packages: readonly string[]): string | null {
  const installed = join(fileURLToPath(new URL("..", import.meta.url)), "node_modules", ".cache", "lowrank", "python", "bin", "python");
  const python = process.env["LOWRANK_PYTHON"] ?? (existsSync(installed) ? installed : undefined);
  if (python === undefined) {
    skipReason("no Python with PEFT (LOWRANK_PYTHON names one; .ci/run installs it where it can)");
    return null;
  }
  try {
    execFileSync(python, ["-c", `import ${packages.join(", ")}`], { stdio: "ignore" });
    return python;
  } catch {
    skipReason(`${python} cannot import ${packages.join(", ")}`);
    return null;
  }
}
