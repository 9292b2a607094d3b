import { randomBytes } from "node:crypto";
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
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
 * Writes a whole file or leaves what was there untouched: into a temporary file in the same folder, flushed to the disk, then renamed
 * over the old one. Makes the folder. Rejects with CheckpointError when the disk is full or the folder not writable; the temporary file is gone then.
 */
export async function writeFileAtomic(path: string, bytes: Bytes | string): Promise<void> {
  const folder = dirname(path);
  const temporary = join(folder, `.${basename(path)}.${randomBytes(6).toString("hex")}.tmp`);
  const data: Bytes = typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes;
  try {
    await mkdir(folder, { recursive: true });
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
    throw fileError(path, "cannot be written", error);
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

function fileError(path: string, what: string, error: unknown): unknown {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const remedy = remedies[code];
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
