import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const told = new Set<string>();

/**
 * The folder with the big goldens, models and data that do not ship with the repository: `$LOWRANK_SHARED`, else `../shared` beside the
 * clone; with `parts`, a path below it. Null where it is absent; the reason is printed once, and the test skips:
 * `describe.skipIf(sharedDir("goldens") === null)(...)`.
 */
export function sharedDir(...parts: readonly string[]): string | null {
  const path = join(process.env["LOWRANK_SHARED"] ?? resolve(root, "../shared"), ...parts);
  if (existsSync(path)) return path;
  skipReason(`no ${join("shared", ...parts)} beside this clone (LOWRANK_SHARED names another place)`);
  return null;
}

/** Prints once why something is skipped. */
export function skipReason(reason: string): void {
  if (told.has(reason)) return;
  told.add(reason);
  process.stderr.write(`skipped: ${reason}\n`);
}
