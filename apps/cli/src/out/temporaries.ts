import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { temporaryOf } from "@lowrank/tensor";
import { isTaken } from "./process.js";

/** Removes temporary files of processes that are gone: those of one file, or all, in the folder and in those of its runs. */
export async function removeTemporaries(
  folder: string,
  { isDeep = false, of = null }: { readonly isDeep?: boolean; readonly of?: string | null },
): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (isDeep && entry.isDirectory()) await removeTemporaries(path, {});
    const { name = null, pid = null } = (entry.isFile() && temporaryOf(entry.name)) || {};
    if (name === null || (of !== null && name !== of)) continue;
    // This process has written nothing yet: what bears its number is of one that had it before, as in a container that was started again.
    if (pid === null || pid === process.pid || !isTaken(pid)) await rm(path, { force: true });
  }
}
