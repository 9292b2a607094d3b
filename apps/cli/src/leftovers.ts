import { readdirSync, readFileSync, rmdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { tellMainThread } from "./main-thread.js";

/** What must not stay of a command that is over, or was ended before it was done. */
export interface Leftover {
  /** The lock that keeps others out of its folder. */
  readonly lock: { readonly path: string; readonly token: string } | null;
  /** Folders that it writes in, and the names that its temporary files there have: they go. */
  readonly folders: readonly string[];
  readonly temporaries: RegExp;
  /** What is nothing unless it is whole. */
  readonly unfinished: readonly string[];
  /** Folders that it made, the outermost first: they go where nothing is in them. */
  readonly made: readonly string[];
}

/**
 * Notes what is removed if the process ends before the command does: by a second Ctrl-C, or by the first where there is no run to save. Takes
 * the place of what was noted before; null where nothing is left. Nothing can be removed after SIGKILL; the next command in the same folder
 * does it then.
 */
export function removeIfEnded(leftover: Leftover | null): void {
  tellMainThread({ kind: "leftover", leftover });
}

/** Removes a lock if its holder is still the one with this token. */
export function removeLock(path: string, token: string): void {
  if (readFileSync(path, "utf8").includes(token)) rmSync(path);
}

/** Removes what a command has left. Says so on stderr where something could not be removed. */
export function removeLeftover({ lock, folders, temporaries, unfinished, made }: Leftover): void {
  for (const folder of folders) for (const name of namesIn(folder)) if (temporaries.test(name)) attempt(join(folder, name), rmSync);
  for (const path of unfinished) attempt(path, () => rmSync(path, { recursive: true }));
  if (lock) attempt(lock.path, () => removeLock(lock.path, lock.token));
  for (const folder of [...made].reverse()) attempt(folder, rmdirSync);
}

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // it is gone, or was never made
  }
}

/** Not there, or not empty, which is as well. */
const expected: ReadonlySet<string> = new Set(["ENOENT", "ENOTDIR", "ENOTEMPTY", "EEXIST"]);

function attempt(path: string, remove: (path: string) => void): void {
  try {
    remove(path);
  } catch (error) {
    if (expected.has((error as NodeJS.ErrnoException).code ?? "")) return;
    process.stderr.write(`${path} could not be removed: ${error instanceof Error ? error.message : String(error)}\n`);
  }
}
