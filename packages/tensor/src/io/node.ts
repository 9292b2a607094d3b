import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { CheckpointError } from "../tensor/errors.js";
import type { ByteSource, Bytes, FileSystem } from "./source.js";

/** Opens a file for ranged reads. Rejects with CheckpointError when it is missing, a folder, or not readable. */
export async function fileSource(path: string): Promise<ByteSource> {
  const handle = await open(path, "r").catch((error: unknown) => {
    throw fileError(path, "cannot be opened", error);
  });
  const info = await handle.stat();
  if (!info.isFile()) {
    await handle.close();
    throw new CheckpointError(`${path}: this is not a file. Give the path of a file.`, path);
  }
  return {
    name: path,
    byteLength: info.size,
    async read(offset, length, into) {
      const bytes = into ?? new Uint8Array(length);
      let done = 0;
      while (done < length) {
        const { bytesRead } = await handle.read(bytes, done, length - done, offset + done);
        if (bytesRead === 0)
          throw new CheckpointError(
            `${path}: the file ended at byte ${offset + done}, ${length - done} bytes early. Fetch or save it again.`,
            path,
          );
        done += bytesRead;
      }
      return bytes;
    },
    close: () => handle.close(),
  };
}

/**
 * Makes a folder and those above it that are missing; the ones that it made, the outermost first. Rejects with CheckpointError where that
 * cannot be. Node's own recursive mkdir reports a read-only file system as a missing file, and never returns below /proc.
 */
export async function makeFolder(path: string): Promise<readonly string[]> {
  const missing: string[] = [];
  for (let at = resolve(path); !(await isFolder(at, path)); at = dirname(at)) missing.unshift(at);
  const made: string[] = [];
  for (const at of missing) {
    try {
      await mkdir(at);
      made.push(at);
    } catch (error) {
      if (codeOf(error) === "EEXIST" && (await isFolder(at, path))) continue; // another process made it meanwhile
      throw fileError(path, "the folder cannot be made", error, {
        ENOENT: "The file system takes no folder there: choose another place.",
        EEXIST: "There is a link that leads nowhere: choose another folder or remove the link.",
      });
    }
  }
  return made;
}

/** False where there is nothing. Rejects with CheckpointError for a file, and where it cannot be said. */
async function isFolder(at: string, path: string): Promise<boolean> {
  const info = await stat(at).catch((error: unknown) => {
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") return null;
    throw fileError(path, "the folder cannot be reached", error);
  });
  if (info && !info.isDirectory()) throw new CheckpointError(`${path}: ${at} is a file (ENOTDIR). Give a folder.`, path);
  return info !== null;
}

/** Temporary files that are being written now: whatever ends this process in a way that it notices takes them along. */
const temporaries = new Set<string>();

function removeTemporaries(): void {
  for (const path of temporaries) rmSync(path, { force: true });
}

/** The name that `writeFileAtomic` gives a file of this process until it is whole. */
export function temporaryName(name: string): string {
  return `.${name}.${process.pid}-${randomBytes(6).toString("hex")}.tmp`;
}

/** Which file a temporary name stands for, and whose it is (null in names that do not say); null for any other name. */
export function temporaryOf(name: string): { readonly name: string; readonly pid: number | null } | null {
  const [, target, pid] = /^\.(.+)\.(?:(\d+)-)?[0-9a-f]{12}\.tmp$/.exec(name) ?? [];
  return target === undefined ? null : { name: target, pid: pid === undefined ? null : Number(pid) };
}

/** The names of a process's temporary files. */
export function temporaryNames(pid: number): RegExp {
  return new RegExp(`^\\..+\\.${pid}-[0-9a-f]{12}\\.tmp$`);
}

/**
 * Writes a whole file or leaves what was there untouched: into a temporary file in the same folder, flushed to the disk, then renamed
 * over the old one. Makes the folder. Rejects with CheckpointError when the disk is full or the folder not writable; the temporary file is gone then,
 * as it is when the process ends in between.
 */
export async function writeFileAtomic(path: string, bytes: Bytes | string): Promise<void> {
  const folder = dirname(path);
  const temporary = resolve(folder, temporaryName(basename(path)));
  const data: Bytes = typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes;
  await makeFolder(folder);
  if (temporaries.size === 0) process.on("exit", removeTemporaries);
  temporaries.add(temporary);
  try {
    const handle = await open(temporary, "wx");
    try {
      for await (const part of data instanceof Uint8Array ? [data] : data) await writeAll(handle, part);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw fileError(path, "cannot be written", error, { ENOENT: "The folder is gone or takes no files: choose another folder." });
  } finally {
    temporaries.delete(temporary);
    if (temporaries.size === 0) process.off("exit", removeTemporaries);
  }
  await syncFolder(folder);
}

async function writeAll(handle: Awaited<ReturnType<typeof open>>, part: Uint8Array): Promise<void> {
  let done = 0;
  while (done < part.byteLength) done += (await handle.write(part, done, part.byteLength - done)).bytesWritten;
}

/** The rename itself must reach the disk too. Not every platform lets a folder be opened. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r").catch(() => null);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}

const remedies: Readonly<Record<string, string>> = {
  ENOENT: "There is no such file: check the path.",
  ENOSPC: "The disk is full: free some space; nothing was written over.",
  EDQUOT: "The disk quota is used up: free some space; nothing was written over.",
  EFBIG: "The file would be larger than this system allows; nothing was written over.",
  EACCES: "The permissions do not allow it: choose another folder or change them.",
  EPERM: "The permissions do not allow it: choose another folder or change them.",
  EROFS: "The file system is read-only: choose another folder.",
  EISDIR: "This is a folder: give the path of a file.",
  ENOTDIR: "A part of the path is a file: check the path.",
  EEXIST: "A part of the path is a file: check the path.",
};

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

/** The operating system's error about a path as a CheckpointError with its reason and remedy, or the error itself where it is of another kind. */
export function fileError(path: string, what: string, error: unknown, own: Readonly<Record<string, string>> = {}): unknown {
  const code = codeOf(error);
  const remedy = own[code] ?? remedies[code];
  return remedy ? new CheckpointError(`${path}: ${what} (${code}). ${remedy}`, path) : error;
}

/** Node's file system. */
export const nodeFiles: FileSystem = {
  async open(path) {
    try {
      return await fileSource(path);
    } catch (error) {
      if (error instanceof CheckpointError && /\((ENOENT|ENOTDIR)\)/.test(error.message)) return null;
      throw error;
    }
  },
  async list(folder) {
    try {
      return (await readdir(folder)).sort();
    } catch {
      return null;
    }
  },
  write: writeFileAtomic,
  join,
};
