import { existsSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import type { RunState } from "@lowrank/models";
import { writeFileAtomic } from "@lowrank/tensor";
import { z } from "zod";
import { checkSettings, type RunBasis } from "../changes.js";
import { UsageError } from "../failure.js";
import type { OutFolder } from "../out-folder.js";

const settingsName = "settings.json";

const settingsSchema = z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()]));
/** Files of before contents were compared hold the settings alone. */
const basisSchema = z.union([
  z.strictObject({ settings: settingsSchema, hashes: z.record(z.string(), z.string()) }),
  settingsSchema.transform((settings) => ({ settings, hashes: null })),
]);

/**
 * Begins or resumes a folder of many runs. Rejects with UsageError when it holds runs of other settings or on other contents;
 * nothing is changed then.
 */
export async function openFolder(folder: OutFolder, basis: Required<RunBasis>): Promise<void> {
  const path = join(folder.path, settingsName);
  const isThere = existsSync(path);
  if (isThere) {
    const saved = basisSchema.safeParse(await readResult(path)).data;
    if (!saved) throw new UsageError(`${path} does not hold the settings of runs. Remove the folder to have everything made again.`);
    checkSettings(folder.path, saved, basis);
  }
  await folder.begin();
  if (!isThere) await writeResult(path, basis);
}

/** A finished part's result. Rejects with UsageError when the file is not whole JSON. */
export async function readResult<T>(path: string): Promise<T> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as T;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new UsageError(`${path} is not JSON (${error.message}). Remove it to have it made again.`);
  }
}

/** Writes a finished part's result, whole or not at all. */
export async function writeResult(path: string, result: object): Promise<void> {
  await writeFileAtomic(path, `${JSON.stringify(result, null, 1)}\n`);
}

/** The result in a file, or what `make` makes and the file then holds; null when that was interrupted. `settings` must be those it was made with. */
export async function finished<T extends { readonly settings: RunState["settings"] }>(
  path: string,
  settings: RunState["settings"],
  signal: AbortSignal,
  make: () => Promise<T | null>,
): Promise<T | null> {
  if (existsSync(path)) {
    const known = await readResult<T>(path);
    if (!settingsSchema.safeParse(known.settings).success)
      throw new UsageError(`${path} does not hold the result of a run. Remove it to have it made again.`);
    checkSettings(path, known, { settings });
    return known;
  }
  const made = await make().catch((error: unknown) => {
    if (signal.aborted && error === signal.reason) return null;
    throw error;
  });
  if (made) await writeResult(path, made);
  return made;
}

/** Removes what only an unfinished run needs. */
export async function removeState(folder: string, name: string): Promise<void> {
  await rm(join(folder, name), { force: true });
}
