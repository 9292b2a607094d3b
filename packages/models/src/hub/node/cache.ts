import { randomBytes } from "node:crypto";
import { lstat, readdir, readFile, readlink, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative, resolve, sep } from "node:path";
import { CheckpointError, fileError, makeFolder, writeFileAtomic } from "@lowrank/tensor";
import { isCommit } from "./revision.js";

/**
 * A repository in the cache of Python's huggingface_hub, in its layout: contents in `blobs` by their digests, `snapshots/COMMIT/NAME` as relative
 * links to them, `refs/BRANCH` with the commit that a branch stood for, `.no_exist/COMMIT/NAME` for what a commit does not have.
 * https://huggingface.co/docs/huggingface_hub/guides/manage-cache
 */
export interface CachedRepository {
  readonly id: string;
  /** `models--org--name` in the cache. */
  readonly folder: string;
  readonly blobs: string;
  /** Where locks of this repository lie, Python's too. */
  readonly locks: string;
}

/** "org/name" or "name", as the hub has them; it may be neither a path nor hold what leads out of a folder. */
export function isHubId(text: string): boolean {
  return (
    text.length <= 96 &&
    text.split("/").length <= 2 &&
    text.split("/").every((part) => /^[\w-][\w.-]*$/.test(part) && !/\.\.|--|\.$/.test(part))
  );
}

export function repositoryIn(cache: string, id: string): CachedRepository {
  const name = `models--${id.replaceAll("/", "--")}`;
  const folder = within(cache, name);
  return { id, folder, blobs: join(folder, "blobs"), locks: join(cache, ".locks", name) };
}

/** What stands in front of a data set's name, on the hub and in `CachedRepository.id`. */
export const dataPrefix = "datasets/";

/** The repository of a data set, "user/name"; its id is "datasets/user/name", as addresses of the hub have it. */
export function dataRepositoryIn(cache: string, name: string): CachedRepository {
  const folderName = `datasets--${name.replaceAll("/", "--")}`;
  const folder = within(cache, folderName);
  return { id: `${dataPrefix}${name}`, folder, blobs: join(folder, "blobs"), locks: join(cache, ".locks", folderName) };
}

/** A path below a folder. Throws CheckpointError where the parts lead out of it, whoever named them. */
export function within(folder: string, ...parts: readonly string[]): string {
  const path = resolve(folder, ...parts);
  if (path.startsWith(resolve(folder) + sep)) return path;
  throw new CheckpointError(`${parts.join("/")} would lie outside ${folder}. Nothing is read or written there; check the name.`, folder);
}

export function snapshotOf({ folder }: CachedRepository, commit: string): string {
  return within(folder, "snapshots", commit);
}

/** The commit that a branch or tag stood for when it was last asked; the revision itself where it is a commit; null where neither is known. */
export async function cachedCommit({ folder }: CachedRepository, revision: string): Promise<string | null> {
  if (isCommit(revision)) return revision;
  const text = await readFile(within(folder, "refs", revision), "utf8").catch(() => "");
  return isCommit(text.trim()) ? text.trim() : null;
}

export async function writeRef({ folder }: CachedRepository, revision: string, commit: string): Promise<void> {
  if (isCommit(revision)) return;
  const path = within(folder, "refs", revision);
  if ((await readFile(path, "utf8").catch(() => null)) !== commit) await writeFileAtomic(path, commit);
}

/** Names of files that a snapshot has, whose contents are there as well. */
export async function namesAt(repository: CachedRepository, commit: string): Promise<ReadonlySet<string>> {
  const snapshot = snapshotOf(repository, commit);
  const found = new Set<string>();
  for (const name of await readdir(snapshot).catch(() => [])) if (await isFile(join(snapshot, name))) found.add(name);
  return found;
}

/** Names of files of which it is known that a commit does not have them. */
export async function absentAt({ folder }: CachedRepository, commit: string): Promise<ReadonlySet<string>> {
  return new Set(await readdir(within(folder, ".no_exist", commit)).catch(() => []));
}

export async function noteAbsent({ folder }: CachedRepository, commit: string, names: readonly string[]): Promise<void> {
  if (names.length === 0) return;
  const absent = within(folder, ".no_exist", commit);
  await makeFolder(absent);
  for (const name of names) await writeFile(within(absent, name), "");
}

/** Whether a name is that of a link that is on its way to its place. */
export function isLinkName(name: string): boolean {
  return /^\.[0-9a-f]{16}\.link$/.test(name);
}

/** Puts a blob into a snapshot under its name: as a link that survives when the cache is moved, or the file itself where there are no links. */
export async function linkBlob(repository: CachedRepository, commit: string, name: string, blob: string): Promise<void> {
  const path = within(snapshotOf(repository, commit), name);
  const target = relative(dirname(path), blob);
  if ((await readlink(path).catch(() => null)) === target) return;
  await makeFolder(dirname(path));
  // Made beside it and renamed: whoever reads meanwhile finds the old one or the new one.
  const temporary = within(repository.blobs, `.${randomBytes(8).toString("hex")}.link`);
  try {
    try {
      await symlink(relative(dirname(path), blob), temporary);
      await rename(temporary, path);
    } finally {
      await rm(temporary, { force: true });
    }
  } catch (error) {
    if (!["EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP"].includes((error as NodeJS.ErrnoException).code ?? ""))
      throw fileError(path, "the cache cannot be written", error);
    await rename(blob, path);
  }
}

export async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (info) => info.isFile(),
    () => false,
  );
}

/** Whether there is something of that name, even a link that leads nowhere. */
export async function isThere(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}
