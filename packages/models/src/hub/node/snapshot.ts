import { readdir, rm, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError, makeFolder, temporaryOf } from "@lowrank/tensor";
import { templateFolder, weightFiles } from "../../checkpoint/files.js";
import { type CachedRepository, isLinkName, linkBlob, noteAbsent, snapshotOf, within, writeRef } from "./cache.js";
import type { Hub, HubOptions } from "./environment.js";
import { partialsIn } from "./partial.js";
import { ProgressMeter } from "./progress.js";
import { commitOf, filesAt, ggufFilesAt, type HubFile } from "./repository.js";
import { fetchBlob } from "./transfer.js";
import { neededOf, OtherKindError, requiredAmong, shardsIn, type Wanted } from "./wanted.js";

/** Files that are fetched at the same time. */
const parallelCount = 4;

/** What one call fetches of a repository at one commit. */
export interface Fetch {
  readonly hub: Hub;
  readonly repository: CachedRepository;
  readonly commit: string;
  readonly options: HubOptions;
}

/**
 * Brings what is wanted of a repository into the cache, all of it of the commit that the revision stands for now, and notes what that commit does
 * not have. The branch's name points to it when all is there.
 */
export async function fetchSnapshot(
  hub: Hub,
  repository: CachedRepository,
  revision: string,
  wanted: Wanted,
  options: HubOptions,
): Promise<string> {
  const { id } = repository;
  const commit = await commitOf(hub, id, revision);
  const files = await filesAt(hub, id, commit, typeof wanted === "string" ? "" : folderOf(wanted.gguf));
  const { optional } = neededOf(wanted);
  const required = requiredAmong(neededOf(wanted), files);
  const absent = required.filter((name) => !files.has(name));
  if (absent.length > 0) {
    const isOther = files.has("config.json") || files.has("adapter_config.json");
    throw notOfThatKind(hub, id, wanted, absent[0] ?? "", files, isOther ? [] : await ggufFilesAt(hub, id, commit));
  }
  await makeFolder(repository.blobs);
  const work: Fetch = { hub, repository, commit, options };
  const weights = wanted === "model" ? await weightsOf(work, files) : [];
  const templates = wanted === "model" ? [...files.keys()].filter((name) => name.startsWith(`${templateFolder}/`)) : [];
  const names = [...required, ...optional.filter((name) => files.has(name)), ...templates, ...weights];
  await fetchFiles(
    work,
    [...new Set(names)].map((name) => files.get(name) ?? missingShard(id, name)),
  );
  await noteAbsent(
    repository,
    commit,
    optional.filter((name) => !files.has(name)),
  );
  await writeRef(repository, revision, commit);
  await removeLeftovers(repository, commit);
  return snapshotOf(repository, commit);
}

/** The folder of a path in a repository. */
const folderOf = (path: string): string => path.slice(0, Math.max(path.lastIndexOf("/"), 0));

/** Says which GGUF files there are, as a sentence; empty where there is none. */
function ggufNamed(id: string, files: readonly string[]): string {
  const names = files.filter((file) => !/-(?!00001)\d{5}-of-\d{5}\.gguf$/i.test(file));
  if (names.length === 0) return "";
  return ` It has GGUF files: name one of ${names
    .slice(0, 8)
    .map((name) => `${id}:${name}`)
    .join(", ")}${names.length > 8 ? `, … (${names.length})` : ""}.`;
}

function notOfThatKind(
  hub: Hub,
  id: string,
  wanted: Wanted,
  name: string,
  files: ReadonlyMap<string, HubFile>,
  ggufFiles: readonly string[],
): CheckpointError {
  const fact = `${id}: it is no folder, and the hub has no ${name} for it at ${hub.endpoint}.`;
  if (wanted === "adapter" && files.has("config.json"))
    return new OtherKindError(`${fact} It is a model: give it as --model.`, id, "model");
  if (wanted !== "adapter" && files.has("adapter_config.json"))
    return new OtherKindError(`${fact} It is an adapter: give it as --adapter, with its base as the model.`, id, "adapter");
  return new CheckpointError(`${fact}${ggufNamed(id, ggufFiles) || " Check the path or the id."}`, id);
}

function missingShard(id: string, name: string): never {
  throw new CheckpointError(`${id}: the hub has no file ${name}, which the index names. Choose another revision.`, id);
}

/** Removes what killed processes of Lowrank have left: nobody else works here while the lock is held. */
async function removeLeftovers(repository: CachedRepository, commit: string): Promise<void> {
  const { blobs, folder } = repository;
  for (const name of await partialsIn(blobs)) await rm(join(blobs, name), { force: true });
  for (const place of [snapshotOf(repository, commit), join(folder, "refs"), blobs])
    for (const name of await readdir(place).catch(() => []))
      if (temporaryOf(name) || isLinkName(name)) await rm(join(place, name), { force: true });
}

/** The names of the files with the weights; their index is fetched for it. */
async function weightsOf(work: Fetch, files: ReadonlyMap<string, HubFile>): Promise<readonly string[]> {
  const { id } = work.repository;
  const found = weightFiles(files.keys());
  if (!found)
    throw new CheckpointError(
      `${id}: the hub has no model.safetensors for it.${ggufNamed(id, await ggufFilesAt(work.hub, id, work.commit)) || " Choose a checkpoint that ships safetensors."}`,
      id,
    );
  if (found.kind === "files") return found.names;
  await fetchFiles(work, [files.get(found.name) ?? missingShard(id, found.name)]);
  return [found.name, ...(await shardsIn(within(snapshotOf(work.repository, work.commit), found.name)))];
}

/** Fetches files, several at a time, the small ones first. With the first that fails the others end. */
export async function fetchFiles(work: Fetch, files: readonly HubFile[]): Promise<void> {
  const { repository, commit, options } = work;
  const snapshot = snapshotOf(repository, commit);
  const sizes = await Promise.all(
    files.map(({ name }) =>
      stat(join(snapshot, name)).then(
        ({ size }) => size,
        () => null,
      ),
    ),
  );
  // A file that an earlier client left broken off has another size.
  const left = files.filter(({ size }, i) => sizes[i] !== size).sort((a, b) => a.size - b.size);
  await checkSpace(repository, left);
  const total = files.reduce((sum, { size }) => sum + size, 0);
  const meter = new ProgressMeter(repository.id, total, files.length, left.length > 0 ? options.onProgress : undefined);
  meter.found(total - left.reduce((sum, { size }) => sum + size, 0));
  const failed = new AbortController();
  const hub: Hub = { ...work.hub, signal: AbortSignal.any([failed.signal, ...(work.hub.signal ? [work.hub.signal] : [])]) };
  const queue = [...left];
  const worker = async (): Promise<void> => {
    for (let file = queue.shift(); file && !hub.signal?.aborted; file = queue.shift()) {
      options.onFile?.(file.name, file.size);
      const blob = await fetchBlob({ hub, repository, commit, file, meter });
      await linkBlob(repository, commit, file.name, blob);
    }
  };
  const workers = Array.from({ length: Math.min(parallelCount, left.length) }, () =>
    worker().catch((error: unknown) => {
      failed.abort(error);
      throw error;
    }),
  );
  await Promise.allSettled(workers); // nobody writes any more when this returns
  hub.signal?.throwIfAborted();
}

async function checkSpace({ id, blobs }: CachedRepository, files: readonly HubFile[]): Promise<void> {
  const free = await statfs(blobs).then(
    ({ bavail, bsize }) => bavail * bsize,
    () => Number.POSITIVE_INFINITY,
  );
  const partials = await Promise.all(
    (await partialsIn(blobs)).map((name) =>
      stat(join(blobs, name)).then(
        ({ size }) => size,
        () => 0,
      ),
    ),
  );
  const needed = files.reduce((sum, { size }) => sum + size, 0) - partials.reduce((sum, size) => sum + size, 0);
  if (needed <= free) return;
  throw new CheckpointError(
    `${id}: ${(needed / 1e9).toFixed(2)} GB are still to be fetched, and ${blobs} has room for ${(free / 1e9).toFixed(2)} GB. Free some space, or set HF_HUB_CACHE to a folder on another disk.`,
    id,
  );
}
