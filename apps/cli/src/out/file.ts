import { rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileError, makeFolder, temporaryName } from "@lowrank/tensor";
import { UsageError } from "../failure.js";
import { type Input, refuseInputs } from "./inputs.js";
import { removeTemporaries } from "./temporaries.js";

/** A file that a command writes where a flag says. */
export interface OutFile extends Input {
  /** Whether the file that is there is one that this command wrote. */
  isOurs(path: string): Promise<boolean>;
}

/** What else there is that the file must not touch. */
interface Beside {
  readonly inputs: readonly Input[];
  /** The command's folder, and the names that it writes there. */
  readonly folder: string;
  readonly writes: readonly string[];
}

/**
 * Checks that a file can be written, and that nothing is lost by it; the folders that this made. Rejects with UsageError when something else is
 * there, when it is an input, or when the command itself writes it; with CheckpointError when it cannot be written.
 */
export async function checkFile(file: OutFile, { inputs, folder, writes }: Beside): Promise<readonly string[]> {
  const { name, path } = file;
  if (path === "") throw new UsageError(`${name} is empty. Give a file.`);
  await refuseInputs(file, inputs, []);
  const place = dirname(path);
  if (writes.includes(basename(path)) && (await isSame(place, folder)))
    throw new UsageError(`${name} is ${path}, which the run itself writes. Give another ${name}.`);
  const there = await stat(path).catch(() => null);
  if (there && !(there.isFile() && (await file.isOurs(path))))
    throw new UsageError(`${name} is ${path}, which is there and is not a file that ${name} wrote. Give another ${name}, or remove it.`);
  const made = await makeFolder(place);
  await removeTemporaries(place, { of: basename(path) });
  const probe = join(place, temporaryName(basename(path)));
  try {
    await writeFile(probe, "", { flag: "wx" });
  } catch (error) {
    throw fileError(path, "cannot be written", error, { ENOENT: "The folder is gone or takes no files: choose another folder." });
  } finally {
    await rm(probe, { force: true });
  }
  return made;
}

async function isSame(a: string, b: string): Promise<boolean> {
  const [one, other] = await Promise.all([a, b].map((path) => stat(path, { bigint: true }).catch(() => null)));
  return one?.dev === other?.dev && one?.ino === other?.ino && one !== null;
}
