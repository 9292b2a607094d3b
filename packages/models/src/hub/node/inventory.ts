import { readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError, fileSource, jsonObject, readHeader } from "@lowrank/tensor";
import { weightFiles } from "../../checkpoint/files.js";
import { families } from "../../families/table.js";
import { type CachedRepository, cachedCommit, isFile, isHubId, isThere, namesAt, repositoryIn, snapshotOf } from "./cache.js";
import { type HubOptions, hubOf } from "./environment.js";
import { withLock } from "./lock.js";
import { partialsIn } from "./partial.js";
import { isCommit } from "./revision.js";
import { adapterWeights, lookUp, shardsIn, type Wanted } from "./wanted.js";

/** A repository of the cache, whoever filled it, described by the newest of its commits that are there. */
export interface CachedModel {
  readonly id: string;
  readonly kind: "model" | "adapter" | "other";
  /** `model_type` of its config, or `peft_type` of an adapter's; null where neither says. */
  readonly family: string | null;
  /** False for a model of a family that is not read here. */
  readonly isSupported: boolean;
  /** How most of its weights are stored, as safetensors files name it; null where there are none. */
  readonly dtype: string | null;
  readonly weightBytes: number;
  /** On the disk, with other commits and what is not whole. */
  readonly sizeBytes: number;
  readonly commit: string;
  /** Branches and tags that are known here. */
  readonly revisions: readonly string[];
  /** Names that are needed and not there. */
  readonly missing: readonly string[];
}

/** What the hub's cache holds, by name. huggingface_hub's scan_cache_dir. */
export async function cachedModels(options: Pick<HubOptions, "cache"> = {}): Promise<readonly CachedModel[]> {
  const { cache } = hubOf(options, "");
  const found: CachedModel[] = [];
  for (const name of (await readdir(cache).catch(() => [])).sort()) {
    const id = name.startsWith("models--") ? name.slice("models--".length).replace("--", "/") : "";
    if (!isHubId(id)) continue;
    const model = await describe(repositoryIn(cache, id));
    if (model) found.push(model);
  }
  return found;
}

async function describe(repository: CachedRepository): Promise<CachedModel | null> {
  const { id, folder } = repository;
  const sizeBytes = await sizeOf(folder);
  const commits = (await readdir(join(folder, "snapshots")).catch(() => [])).filter(isCommit);
  const ages = await Promise.all(commits.map(async (commit) => ({ commit, at: (await stat(snapshotOf(repository, commit))).mtimeMs })));
  const main = await cachedCommit(repository, "main");
  const newest = ages.sort((a, b) => b.at - a.at)[0]?.commit;
  const commit = main !== null && commits.includes(main) ? main : newest;
  if (commit === undefined && (await partialsIn(repository.blobs)).length === 0) return null;
  const base = { id, sizeBytes, commit: commit ?? "", revisions: await refsIn(join(folder, "refs")) };
  if (commit === undefined)
    return { ...base, kind: "other", family: null, isSupported: false, dtype: null, weightBytes: 0, missing: ["all but a part of a file"] };
  const names = await namesAt(repository, commit);
  const kind = names.has("config.json") ? "model" : names.has("adapter_config.json") ? "adapter" : "other";
  const described = await fieldIn(join(snapshotOf(repository, commit), kind === "adapter" ? "adapter_config.json" : "config.json"), kind);
  const weights = kind === "other" ? [] : await weightsIn(repository, commit, names, kind);
  const stored = await storedAs(weights);
  const isSupported = kind === "adapter" || (kind === "model" && described !== null && Object.hasOwn(families, described));
  return {
    ...base,
    kind,
    family: described,
    isSupported,
    ...stored,
    missing: kind === "other" ? [] : ((await lookUp(repository, commit, kind))?.missing ?? []),
  };
}

/** What a config calls the kind of model or adapter; null where it does not say, or is damaged. */
async function fieldIn(path: string, kind: CachedModel["kind"]): Promise<string | null> {
  const json = jsonObject(await readFile(path, "utf8").catch(() => ""));
  if (typeof json === "string") return null;
  const value = json[kind === "adapter" ? "peft_type" : "model_type"];
  return typeof value === "string" ? value : null;
}

async function weightsIn(
  repository: CachedRepository,
  commit: string,
  names: ReadonlySet<string>,
  kind: Wanted,
): Promise<readonly string[]> {
  const folder = snapshotOf(repository, commit);
  if (kind === "adapter") return adapterWeights.filter((name) => names.has(name)).map((name) => join(folder, name));
  const found = weightFiles(names);
  const files = found?.kind === "index" ? await shardsIn(join(folder, found.name)).catch(() => []) : (found?.names ?? []);
  return files.filter((name) => names.has(name)).map((name) => join(folder, name));
}

/** The dtype that takes most of the bytes of some files, by their headers. What is damaged counts as nothing. */
async function storedAs(paths: readonly string[]): Promise<{ readonly dtype: string | null; readonly weightBytes: number }> {
  const bytes = new Map<string, number>();
  for (const path of paths) {
    const source = await fileSource(path);
    try {
      const { entries } = await readHeader(source);
      for (const entry of entries) bytes.set(entry.dtype, (bytes.get(entry.dtype) ?? 0) + entry.bytes);
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error; // loading says what is wrong with it
    } finally {
      await source.close?.();
    }
  }
  const [most] = [...bytes].sort(([, a], [, b]) => b - a);
  return { dtype: most?.[0] ?? null, weightBytes: [...bytes.values()].reduce((sum, count) => sum + count, 0) };
}

async function refsIn(folder: string): Promise<readonly string[]> {
  const names = await readdir(folder, { recursive: true, encoding: "utf8" }).catch(() => []);
  const files = await Promise.all(names.map(async (name) => ((await isFile(join(folder, name))) ? [name] : [])));
  return files.flat().sort();
}

/** Bytes of all files below a folder; links count as nothing. */
async function sizeOf(folder: string): Promise<number> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  const sizes = await Promise.all(entries.filter((entry) => entry.isFile()).map((entry) => stat(join(entry.parentPath, entry.name))));
  return sizes.reduce((sum, { size }) => sum + size, 0);
}

/**
 * Removes a repository from the cache, with all its commits; resolves to the bytes that are free now. Waits while another process fetches into it.
 * Rejects with CheckpointError where the cache does not have it.
 */
export async function removeCached(id: string, options: Pick<HubOptions, "cache" | "signal" | "onNote"> = {}): Promise<number> {
  const { cache, onNote } = hubOf(options, id);
  const repository = isHubId(id) ? repositoryIn(cache, id) : null;
  if (!repository || !(await isThere(repository.folder)))
    throw new CheckpointError(`${id}: the cache ${cache} does not have it. \`lowrank models\` lists what is there.`, id);
  const wait = { signal: options.signal, onWait: () => onNote(`another lowrank fetches ${id}; waiting for it …`) };
  const size = await withLock(repository.locks, wait, async () => {
    const bytes = await sizeOf(repository.folder);
    await rm(repository.folder, { recursive: true });
    return bytes;
  });
  await rm(repository.locks, { recursive: true, force: true });
  return size;
}
