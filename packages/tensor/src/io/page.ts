import { CheckpointError } from "../tensor/errors.js";
import type { ByteSource, FileSystem } from "./source.js";

const startBytes = 256;

/** Whether bytes begin as a web page does. No JSON, and no safetensors header of a size that is read, begins so. */
export function isPage(start: Uint8Array): boolean {
  return /^\s*<(!doctype|html|head|body)\b/i.test(new TextDecoder().decode(start));
}

/**
 * Opens a file of a checkpoint; null where there is none, or where a host gives a web page in its place: many answer so, with status 200,
 * for every file that they do not have.
 */
export async function openFile(files: FileSystem, path: string): Promise<ByteSource | null> {
  const source = await files.open(path);
  if (!source || !(await isPageSource(source))) return source;
  await source.close?.();
  return null;
}

/** The error for a file that cannot do without, where a web page is in its place; null where there is none. */
export async function pageError(files: FileSystem, path: string): Promise<CheckpointError | null> {
  const source = await files.open(path);
  const isReplaced = source !== null && (await isPageSource(source));
  await source?.close?.();
  if (!isReplaced) return null;
  return new CheckpointError(
    `${path}: this is a web page (HTML), not the file. Hosts answer so for files that they do not have, or that ask for a login: check the address, or fetch the file again.`,
    path,
  );
}

async function isPageSource(source: ByteSource): Promise<boolean> {
  if (source.json) return false;
  return isPage(await source.read(0, Math.min(startBytes, source.byteLength)));
}
