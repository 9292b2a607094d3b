import { existsSync, readdirSync } from "node:fs";
import { resolve } from "node:path";
import { UsageError } from "./failure.js";
import { removeIfEnded } from "./leftovers.js";

/** Throws UsageError unless `out` is a new or an empty folder, and none of those that are read. What it then gets goes if the command is ended. */
export function checkOut(out: string, read: readonly string[]): void {
  if (read.some((path) => resolve(path) === resolve(out)))
    throw new UsageError(`--out is ${out}, which is read as well. Give a new folder.`);
  if (existsSync(out) && readdirSync(out).length > 0) throw new UsageError(`${out} already holds files. Give a new or an empty folder.`);
  removeIfEnded(out, "contents");
}
