import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** The repository that the suite is part of. */
export const root: string = fileURLToPath(new URL("../../..", import.meta.url));

/** The command line's program. */
export const commandLine: string = join(root, "apps", "cli", "bin", "lowrank.js");

/** The small pretrained model that ships with the repository. */
export const embeddedModel: string = join(root, "examples", "base-model", "model");

/** Big models and data, which do not ship: `$LOWRANK_SHARED`, else `../shared` beside the clone; null where a path below it is absent. */
export function shared(...parts: readonly string[]): string | null {
  const path = join(process.env["LOWRANK_SHARED"] ?? resolve(root, "../shared"), ...parts);
  return existsSync(path) ? path : null;
}

/** The folder of SmolLM2-135M-Instruct in bfloat16, made where it is not there yet; or why it cannot be. */
export async function smollm2(): Promise<{ readonly path: string } | { readonly skipped: string }> {
  const script = (await import(pathToFileURL(join(root, "scripts", "smollm2.mjs")).href)) as {
    smollm2Folder(): { readonly path: string } | { readonly skipped: string };
  };
  return script.smollm2Folder();
}

/** A script beside the suite with the interpreter that runs it; or why there is none. */
export function pythonScript(name: string): readonly [python: string, script: string] | { readonly skipped: string } {
  const python = process.env["LOWRANK_PYTHON"];
  const script = join(root, "apps", "bench", "python", name);
  return python === undefined || !existsSync(script) ? { skipped: "LOWRANK_PYTHON names no interpreter" } : [python, script];
}

/** Rows of the example task, made anew: the same for the same seed. */
export async function exampleRows(count: number): Promise<readonly object[]> {
  const path = join(root, "examples", "orders", "generate.mjs");
  const { generateOrders } = (await import(pathToFileURL(path).href)) as {
    generateOrders(options: { trainCount: number; heldOutCount: number; seed: number }): { train: readonly object[] };
  };
  return generateOrders({ trainCount: count, heldOutCount: 1, seed: 1 }).train;
}

/**
 * Makes the Vulkan loader of this process and of those that it starts see one software driver only; says why not where it is absent.
 * The loader reads its environment once, so this comes before the first WebGPU device.
 */
export async function useDriver(driver: "lavapipe" | "swiftshader"): Promise<string | null> {
  const path = join(root, "scripts", "vulkan.mjs");
  const vulkan = (await import(pathToFileURL(path).href)) as { findVulkan(name: string): object | string; useVulkan(name: string): void };
  const found = vulkan.findVulkan(driver);
  if (typeof found === "string") return found;
  vulkan.useVulkan(driver);
  return null;
}
