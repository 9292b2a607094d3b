import { readdir, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { stateFileName } from "@lowrank/models";
import { type FileSystem, makeFolder, nodeFiles, temporaryNames, temporaryOf } from "@lowrank/tensor";
import { UsageError } from "./failure.js";
import { interruptedCode } from "./interruption.js";
import { type Leftover, removeIfEnded, removeLeftover } from "./leftovers.js";
import { checkFile, type OutFile } from "./out/file.js";
import { type Input, refuseInputs } from "./out/inputs.js";
import { acquireLock, type FolderLock, isLockName, type LockOptions } from "./out/lock.js";
import { earlierRun, earlierRuns, type Mark, markName, readMark, writeMark } from "./out/mark.js";
import { removeTemporaries } from "./out/temporaries.js";
import type { Output } from "./output.js";

/** What a command is to write, and what of it may be there. */
export interface OutClaim {
  /** The command's name, which the mark keeps. */
  readonly command: string;
  /** The value of --out. */
  readonly path: string;
  /** All that the command reads. */
  readonly inputs: readonly Input[];
  /** Every name that it may write in the folder. */
  readonly writes: readonly string[];
  /**
   * `new`: the folder is new or empty, or holds what a killed command left unfinished; what a failed one wrote is removed. `own`: new or empty, or of the same command, which goes on
   * there or replaces it. `start`: a run that begins beside whatever it does not write. `resume`: goes on with a run, or begins
   * one where there is none. `replace`: removes the run that is there, which is one of ours.
   */
  readonly mode: "new" | "own" | "start" | "resume" | "replace";
  /** Files outside the folder that the command writes as well. */
  readonly files?: readonly OutFile[];
}

/** A folder that is this process's to write in. */
export interface OutFolder {
  readonly path: string;
  /** Node's files, which are written only while the folder is still this process's. */
  readonly files: FileSystem;
  /** The command's signal, aborted as well when another process has taken the folder over. */
  readonly signal: AbortSignal;
  /** Removes what is to be replaced, and marks the folder: from here on it is the command's. Called once it is certain that it will write. */
  begin(): Promise<void>;
  /** The path of a run's folder in it. Rejects with UsageError when what is there is not of this command. */
  beginRun(name: string, writes: readonly string[]): Promise<string>;
}

/** What the guard needs of a command's context, and what only its tests set. */
export interface OutContext {
  readonly output: Pick<Output, "note">;
  readonly signal: AbortSignal;
  readonly lock?: Pick<LockOptions, "identity" | "staleMs">;
}

/**
 * The one way in which a command writes where it was told to: checks that nothing is written over that the command did not make, that no
 * input is among it, and that the folder can be written; keeps other processes out for as long as `use` runs; and removes what a killed
 * process has left. Rejects with UsageError or CheckpointError before anything is changed. Resolves to what `use` does, or to the code of the
 * signal that came while waiting for another machine's process.
 */
export async function withOutFolder(context: OutContext, claim: OutClaim, use: (folder: OutFolder) => Promise<number>): Promise<number> {
  const { output, signal } = context;
  const { command, path, writes, mode } = claim;
  if (path === "") throw new UsageError("--out is empty. Give a folder.");
  await refuseInputs({ name: "--out", path }, claim.inputs, mode === "own" ? "all" : writes);
  // A folder with a lock is one of ours or was being made, and its holder is told before its contents are.
  if (!((await namesIn(path)) ?? []).some(isLockName)) await checkContents(claim);

  const before = await namesIn(path);
  const lost = new AbortController();
  let lock: FolderLock | null = null;
  let leftover: Leftover = {
    lock: null,
    folders: [path],
    temporaries: temporaryNames(process.pid),
    unfinished: [],
    made: await makeFolder(path),
  };
  /** What is to go grows as the command goes on, and one place knows it. */
  const note = (more: Partial<Leftover>): void => {
    leftover = { ...leftover, ...more };
    removeIfEnded(leftover);
  };
  const tidy = (): void => removeLeftover(leftover);
  process.on("exit", tidy);
  try {
    note({});
    lock = await acquireLock(path, {
      ...context.lock,
      command,
      signal,
      onWait: (holder) => output.note(`${path} is locked by ${holder}; looking for up to 30 s whether it still lives …`),
      onLost: () => lost.abort(),
    });
    if (!lock) return interruptedCode(signal);
    note({ lock: { path: lock.path, token: lock.holder.token } });
    if (lock.replaced) output.note(`${path} was locked by ${lock.replaced}, which is gone: taking over`);
    const found = await checkContents(claim);
    // What is removed may be read as well, though nothing is written in its place.
    if ((mode === "replace" || mode === "new") && found)
      await refuseInputs({ name: "--out", path }, claim.inputs, [...new Set([...writes, ...found.files])]);
    for (const file of claim.files ?? []) {
      const made = await checkFile(file, { inputs: claim.inputs, folder: path, writes });
      note({ made: [...leftover.made, ...made], folders: [...leftover.folders, dirname(file.path)] });
    }
    await removeTemporaries(path, { isDeep: mode === "own" });
    if (mode === "new") {
      if (found) output.note(`${path} holds what a killed lowrank ${found.command} left unfinished: replacing it`);
      for (const name of [...(found?.files ?? []), markName]) await rm(join(path, name), { force: true });
      note({ unfinished: [...writes, markName].map((name) => join(path, name)) });
    } else if (mode === "own") {
      const unfinished = writes.filter((name) => !before?.includes(name)).map((name) => join(path, name));
      note({ unfinished, folders: [...leftover.folders, ...unfinished] });
    }
    const onRun = (folder: string): void => note({ folders: [...leftover.folders, folder] });
    const code = await use(folderOf(claim, { lock, found, signal: AbortSignal.any([signal, lost.signal]), onRun }));
    if (lost.signal.aborted) throw lostError(path);
    if (code === 0) {
      if (mode === "new") await rm(join(path, markName), { force: true });
      note({ unfinished: [] });
    }
    return code;
  } catch (error) {
    // Of a folder that is gone, whatever is tried next fails as well.
    throw lock && !lock.isHeld() ? lostError(path, error) : error;
  } finally {
    process.off("exit", tidy);
    await lock?.stop();
    // What is there now is whoever's who has taken over.
    if (lock && !lock.isHeld()) note({ unfinished: [], folders: [] });
    tidy();
    removeIfEnded(null);
  }
}

interface Held {
  readonly lock: FolderLock;
  /** The mark of what was there. */
  readonly found: Mark | null;
  readonly signal: AbortSignal;
  readonly onRun: (folder: string) => void;
}

function folderOf({ command, path, inputs, writes, mode }: OutClaim, { lock, found, signal, onRun }: Held): OutFolder {
  const checkLock = (): void => {
    if (!lock.isHeld()) throw lostError(path);
  };
  /** What is written where all of it has to be new. */
  const begun: string[] = [];
  return {
    path,
    signal,
    files: {
      ...nodeFiles,
      async write(file, bytes) {
        checkLock();
        if (mode === "new") {
          begun.push(basename(file));
          await writeMark(path, { command, files: begun, isUnfinished: true });
        }
        await nodeFiles.write(file, bytes);
      },
    },
    async begin() {
      checkLock();
      const old = found?.files ?? [];
      await writeMark(path, { command, files: mode === "replace" ? [...new Set([...old, ...writes])] : [...writes] });
      if (mode !== "replace") return;
      for (const name of old) await rm(join(path, name), { force: true });
      await writeMark(path, { command, files: writes });
    },
    async beginRun(name, files) {
      checkLock();
      const folder = join(path, name);
      await refuseInputs({ name: "--out", path: folder }, inputs, files);
      const present = contentsOf(await namesIn(folder));
      const mark = await readMark(folder);
      if (mark !== null && mark.command !== command) throw otherCommand(folder, mark);
      if (mark === null && present.length > 0 && !(await earlierRun(folder))) throw notOurs(folder, present, command);
      onRun(folder);
      await writeMark(folder, { command, files });
      return folder;
    },
  };
}

/** Names in a folder; null where there is none. */
async function namesIn(path: string): Promise<readonly string[] | null> {
  return readdir(path).catch((error: unknown) => {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return null;
    throw error;
  });
}

/** What is not the guard's own, and no temporary file. */
function contentsOf(names: readonly string[] | null): readonly string[] {
  return (names ?? []).filter((name) => name !== markName && !isLockName(name) && temporaryOf(name) === null);
}

/** Files that are somebody's work of hours. */
const isWeights = (name: string): boolean =>
  /\.(safetensors|bin|gguf|pth?|ckpt|h5|msgpack|onnx|npz)$|\.index\.json$|^(adapter_)?config\.json$/i.test(name);

/** Whether a claim may have what its folder holds; the mark of what it replaces or goes on with. Rejects with UsageError where it may not. */
async function checkContents({ command, path, writes, mode }: OutClaim): Promise<Mark | null> {
  const names = await namesIn(path);
  if (names === null) return null;
  const present = contentsOf(names);
  const mark = await readMark(path);
  if (mode === "new") {
    const unfinished = mark?.isUnfinished ? mark : null;
    const others = present.filter((name) => !unfinished?.files.includes(name));
    if (others.length > 0 || (mark && !unfinished)) throw new UsageError(`${path} already holds files. Give a new or an empty folder.`);
    return unfinished;
  }
  if (mark !== null && mark.command !== command) throw otherCommand(path, mark);
  if (mode === "own") {
    if (mark === null && present.length > 0 && !(await earlierRuns(path))) throw notOurs(path, present, command);
    return mark;
  }
  const own = mark ?? (await earlierRun(path));
  if (mode === "replace") {
    if (own === null && present.length > 0) throw notOurs(path, present, command);
    const others = present.filter((name) => writes.includes(name) && !own?.files.includes(name));
    if (others.length > 0) throw notOurs(path, others, command);
    return own;
  }
  const kept = new Set(own?.files ?? []);
  const others = present.filter((name) => !kept.has(name) && (writes.includes(name) || (own === null && isWeights(name))));
  if (others.length > 0) throw notOurs(path, others, command);
  const run = present.filter((name) => kept.has(name));
  if (mode === "start" && run.length > 0)
    throw new UsageError(
      `${path} already holds a run (${some(run)}). Resume it with --resume, give another --out, or replace it with --overwrite.`,
    );
  if (mode === "resume" && !present.includes(stateFileName) && run.some(isWeights))
    throw new UsageError(
      `${path} holds ${some(run.filter(isWeights))} and no ${stateFileName}, so there is nothing to resume from. Give another --out, or begin anew with --overwrite.`,
    );
  return own;
}

function some(names: readonly string[]): string {
  return `${names.slice(0, 4).join(", ")}${names.length > 4 ? ", …" : ""}`;
}

function notOurs(path: string, names: readonly string[], command: string): UsageError {
  return new UsageError(`${path} holds ${some(names)}, which lowrank ${command} did not make. Give a new or an empty folder.`);
}

function lostError(path: string, cause?: unknown): UsageError {
  return new UsageError(
    `${path} is not this process's any more: it was removed, or another process took it over while this one did not answer. Nothing more was written there; see what is in it, then resume with --resume or give another --out.`,
    { cause },
  );
}

function otherCommand(path: string, { command }: Mark): UsageError {
  return new UsageError(`${path} holds what lowrank ${command} made. Give another --out.`);
}
