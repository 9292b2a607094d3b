import { stat } from "node:fs/promises";
import { join } from "node:path";
import { isDataFile, isDataReference } from "@lowrank/models";
import { glob, isDynamicPattern } from "tinyglobby";
import { UsageError } from "../failure.js";
import { dataFilesOf, type Fetching } from "../hub.js";

/** A data file, and how often each of its rows counts. */
export interface DataPath {
  readonly path: string;
  readonly weight: number;
}

/**
 * The files that --data names: files, folders of data files, patterns, and data sets of the hub (`hub:user/name`), which are fetched; after the last
 * colon perhaps a weight. Rejects with UsageError where a folder or a pattern holds none, and with CheckpointError where the hub has none.
 */
export async function dataPaths(names: readonly string[], fetching: Fetching): Promise<DataPath[]> {
  const found: DataPath[] = [];
  for (const name of names) {
    // A file that is there is meant, whatever its name ends with.
    const { path, weight } = (await isFile(name)) ? { path: name, weight: 1 } : weighted(name);
    for (const each of isDataReference(path) ? await dataFilesOf(path, fetching) : await filesOf(path)) found.push({ path: each, weight });
  }
  return found;
}

/** A name, and the number after its last colon where there is one. */
export function weighted(name: string): DataPath {
  const colon = name.lastIndexOf(":");
  const text = name.slice(colon + 1).trim();
  if (colon < 1 || text === "" || Number.isNaN(Number(text))) return { path: name, weight: 1 };
  const weight = Number(text);
  if (!Number.isFinite(weight) || weight <= 0)
    throw new UsageError(`The weight of ${name.slice(0, colon)} is ${text}. Give a number above 0 behind the colon.`);
  return { path: name.slice(0, colon), weight };
}

async function filesOf(path: string): Promise<readonly string[]> {
  const info = await stat(path).catch(() => null);
  if (info?.isDirectory()) {
    const names = (await glob("**/*", { cwd: path })).filter(isDataFile).sort();
    if (names.length === 0)
      throw new UsageError(`${path} is a folder without data files. Give one with .jsonl, .json, .csv, .tsv or .parquet files, or a file.`);
    return names.map((name) => join(path, name));
  }
  if (info !== null || !isDynamicPattern(path)) return [path];
  const names = (await glob(path, { absolute: false })).sort();
  if (names.length === 0) throw new UsageError(`No file matches ${path}. Write quotes around the pattern, and look at its folder.`);
  return names;
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isFile() === true;
}
