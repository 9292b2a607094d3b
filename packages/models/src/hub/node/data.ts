import { mkdir, readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError, writeFileAtomic } from "@lowrank/tensor";
import * as z from "zod/mini";
import { isDataFile } from "../../data/formats/format.js";
import { type CachedRepository, cachedCommit, dataRepositoryIn, isHubId, snapshotOf, within, writeRef } from "./cache.js";
import { type Hub, type HubOptions, hubOf } from "./environment.js";
import { withLock } from "./lock.js";
import type { HubFile } from "./repository.js";
import { checkRevision } from "./revision.js";
import { type DataReference, type Splits, splitOf, splitsOf } from "./splits.js";

/** Where the hub keeps its own conversion of a data set to Parquet. */
const convertedRevision = "refs/convert/parquet";

/**
 * The files of a split of a data set of the hub, from the local cache, else fetched into it: of the hub's conversion to Parquet (`refs/convert/parquet`),
 * or where there is none, and with a revision, of the data set's own files. What was fetched of a branch stays what it is, as with models.
 * Rejects with CheckpointError where there is no such data set, configuration or split, naming those that there are; with the signal's reason
 * when that is aborted. datasets.load_dataset.
 */
export async function resolveData(reference: DataReference, options: HubOptions = {}): Promise<readonly string[]> {
  const { name, revision } = reference;
  if (!isHubId(name) || !name.includes("/"))
    throw new CheckpointError(`hub:${name}: this is no name of a data set. Give one such as hub:user/name.`, name);
  const hub = hubOf(options, name);
  if (revision !== null) checkRevision(name, revision);
  const repository = dataRepositoryIn(hub.cache, name);
  for (const branch of revision === null ? [convertedRevision, "main"] : [revision]) {
    const found = await cachedSplit(hub, repository, branch, reference);
    if (found) return found;
  }
  if (hub.isOffline)
    throw new CheckpointError(
      `hub:${name}: it is not in the cache ${hub.cache}, or not all of this split, while HF_HUB_OFFLINE is set. Unset it, or give a file.`,
      name,
    );
  return withLock(
    repository.locks,
    { signal: hub.signal, onWait: () => hub.onNote(`another lowrank fetches ${name} into ${hub.cache}; waiting for it …`) },
    () => fetchSplit(hub, repository, reference, options),
  );
}

/** What is known of a data set's files at one commit. */
interface Known {
  readonly commit: string;
  readonly files: ReadonlyMap<string, HubFile>;
}

async function fetchSplit(
  hub: Hub,
  repository: CachedRepository,
  reference: DataReference,
  options: HubOptions,
): Promise<readonly string[]> {
  const { fetchFiles } = await import("./snapshot.js");
  const { revision, files, commit } = await filesOnHub(hub, repository, reference);
  const split = splitOf(splitsOf(files.keys(), revision === convertedRevision), reference);
  await mkdir(repository.blobs, { recursive: true });
  await fetchFiles(
    { hub, repository, commit, options },
    split.map((name) => files.get(name) as HubFile), // it was listed
  );
  await writeList(repository, { commit, files });
  await writeRef(repository, revision, commit);
  return split.map((name) => within(snapshotOf(repository, commit), name));
}

/** The files of the revision that is asked for; without one, of the hub's conversion where there is one and it has what is asked for, else of main. */
async function filesOnHub(hub: Hub, { id }: CachedRepository, reference: DataReference): Promise<Known & { readonly revision: string }> {
  const { commitOf, dataFilesAt, NoRevisionError } = await import("./repository.js");
  const at = async (revision: string): Promise<Known & { readonly revision: string }> => {
    const commit = await commitOf(hub, id, revision);
    return { revision, commit, files: await dataFilesAt(hub, id, commit) };
  };
  if (reference.revision !== null) return at(reference.revision);
  const main = await at("main");
  const converted = await at(convertedRevision).catch((error: unknown) => {
    if (!(error instanceof NoRevisionError)) throw error;
    return null; // a data set that the hub did not convert
  });
  return converted && [...converted.files.keys()].some(isDataFile) ? converted : main;
}

/** The files of a split where the cache has all of them; null where it does not. */
async function cachedSplit(
  hub: Hub,
  repository: CachedRepository,
  revision: string,
  reference: DataReference,
): Promise<readonly string[] | null> {
  const commit = await cachedCommit(repository, revision);
  if (commit === null) return null;
  const listed = await readList(repository, commit);
  const snapshot = snapshotOf(repository, commit);
  // What Python's client cached has no list: without the network, what is there is taken for all of it.
  const names = listed ? [...listed.keys()] : hub.isOffline ? await namesBelow(snapshot) : [];
  const splits: Splits = splitsOf(names, revision === convertedRevision);
  if (splits.size === 0) return null;
  const split = splitOf(splits, reference);
  for (const name of split) {
    const size = await stat(within(snapshot, name)).then(
      (info) => info.size,
      () => null,
    );
    if (size === null || (listed && size !== listed.get(name))) return null;
  }
  return split.map((name) => within(snapshot, name));
}

async function namesBelow(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true, encoding: "utf8" }).catch(() => []);
  return names.map((name) => name.replaceAll("\\", "/"));
}

/** A file of ours beside the cache's own: names and sizes of all that a commit has, so that a later call need not ask. */
const listName = (commit: string): string => join(".lowrank-files", `${commit}.json`);
const listSchema = z.record(z.string(), z.number());

async function writeList({ folder }: CachedRepository, { commit, files }: Known): Promise<void> {
  const path = within(folder, listName(commit));
  await mkdir(within(folder, ".lowrank-files"), { recursive: true });
  await writeFileAtomic(path, JSON.stringify(Object.fromEntries([...files].map(([name, { size }]) => [name, size]))));
}

async function readList({ folder }: CachedRepository, commit: string): Promise<ReadonlyMap<string, number> | null> {
  const text = await readFile(within(folder, listName(commit)), "utf8").catch(() => "");
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return null; // it is not there, or was cut
  }
  const { data } = z.safeParse(listSchema, json);
  return data ? new Map(Object.entries(data)) : null;
}
