import { existsSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import type { RunState } from "@lowrank/models";
import { writeFileAtomic } from "@lowrank/tensor";
import { z } from "zod";
import { asSaved, checkSettings, noteUncompared, type RunBasis } from "../changes.js";
import { UsageError } from "../failure.js";
import type { OutFolder } from "../out-folder.js";
import type { Output } from "../output.js";
import { settingsSchema } from "./results.js";

const settingsName = "settings.json";

/** Files of before contents were compared hold the settings alone. */
const basisSchema = z.union([
  z.strictObject({ settings: settingsSchema, hashes: z.record(z.string(), z.string()) }),
  settingsSchema.transform((settings) => ({ settings, hashes: null })),
]);

/**
 * Begins or resumes a folder of many runs. Resolves to the settings by which its runs are kept: a place is called as it was at first where
 * its contents are the same. Rejects with UsageError when it holds runs of other settings or on other contents; nothing is changed then.
 */
export async function openFolder(
  folder: OutFolder,
  basis: Required<RunBasis>,
  output: Pick<Output, "note">,
): Promise<RunState["settings"]> {
  const path = join(folder.path, settingsName);
  if (!existsSync(path)) {
    await folder.begin();
    await writeResult(path, basis);
    return basis.settings;
  }
  const saved = basisSchema.safeParse(await readResult(path)).data;
  if (!saved) throw new UsageError(`${path} does not hold the settings of runs. Remove the folder to have everything made again.`);
  checkSettings(folder.path, saved, basis);
  noteUncompared(folder.path, saved, output);
  await folder.begin();
  return asSaved(saved, basis);
}

/** What a file of a finished part holds. Rejects with UsageError when the file is not whole JSON. */
async function readResult(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, "utf8"));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new UsageError(`${path} is not JSON (${error.message}). Remove it to have it made again.`);
  }
}

/** Writes a finished part's result, whole or not at all. */
async function writeResult(path: string, result: object): Promise<void> {
  await writeFileAtomic(path, `${JSON.stringify(result, null, 1)}\n`);
}

/** A part of a comparison or a study, and the file that holds its result. */
export interface Part<T> {
  readonly path: string;
  readonly schema: z.ZodType<T>;
  /** Those that the result must have been made with. */
  readonly settings: RunState["settings"];
  readonly signal: AbortSignal;
}

/**
 * The result in a part's file, or what `make` makes and the file then holds; null when that was interrupted. Rejects with UsageError when the
 * file holds something else, or a result of other settings.
 */
export async function finished<T extends { readonly settings: RunState["settings"] }>(
  { path, schema, settings, signal }: Part<T>,
  make: () => Promise<T | null>,
): Promise<T | null> {
  if (existsSync(path)) {
    const known = schema.safeParse(await readResult(path)).data;
    if (!known) throw new UsageError(`${path} does not hold the result of a run. Remove it to have it made again.`);
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
