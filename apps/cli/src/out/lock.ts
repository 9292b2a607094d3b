import { createHash, randomBytes } from "node:crypto";
import { type Stats, statSync } from "node:fs";
import { type FileHandle, link, lstat, open, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileError, temporaryName } from "@lowrank/tensor";
import { z } from "zod";
import { UsageError } from "../failure.js";
import { beatDigits, fileNumber, startHeartbeat } from "./heartbeat.js";
import { isRunning, type ProcessIdentity, thisProcess } from "./process.js";

/** The file in a folder that says who writes there. */
export const lockName = ".lowrank.lock";

/** Whether a name is a lock's: the lock itself, or one that is taking its place. */
export function isLockName(name: string): boolean {
  return name === lockName || name.startsWith(`${lockName}-`);
}

/** A lock that has not changed for so long has no living holder. */
const staleAfterMs = 30_000;

/** Before a lock that was given back meanwhile is tried for again. */
const retryMs = 5;

const holderSchema = z.object({
  host: z.string(),
  machine: z.string(),
  pid: z.number().int().positive(),
  start: z.string().nullable(),
  command: z.string(),
  since: z.string(),
  token: z.string().regex(/^[0-9a-f]{32}$/),
});

/** Who holds a lock. */
export type Holder = z.infer<typeof holderSchema>;

/** A lock file as it was read. `holder` is null where the file does not say; its token then stands for its name and text. */
interface Found {
  readonly path: string;
  readonly text: string;
  readonly token: string;
  readonly holder: Holder | null;
}

export interface LockOptions {
  /** What the holder does, for whoever finds the lock. */
  readonly command: string;
  /** Called before waiting to see whether a holder on another machine still lives. */
  readonly onWait?: (holder: string) => void;
  /** Called once when the lock is not ours any more. */
  readonly onLost?: () => void;
  /** Ends the wait. */
  readonly signal?: AbortSignal;
  readonly identity?: ProcessIdentity;
  /** How long a lock must not have changed to be given up by another machine; 30 s. */
  readonly staleMs?: number;
}

/**
 * Takes the lock of a folder, or resolves to null when the signal ended the wait. Rejects with UsageError where another process holds it,
 * or where something stands in its place that is not a lock.
 *
 * A holder on this machine is judged by its number and its start, at once. Any other is judged by its heartbeat, by this process's own clock.
 * A dead holder's lock is taken over without a moment in which there is none, and by one process only: its successor is the file named after
 * its token, which only one can create, and which counts only while the chain of successors that begins at the lock leads to it. Tokens are
 * never used twice, so whoever was late finds itself outside the chain.
 */
export async function acquireLock(folder: string, options: LockOptions): Promise<FolderLock | null> {
  const { identity = thisProcess(), command } = options;
  const path = join(folder, lockName);
  const own: Holder = { ...identity, command, since: timeOf(new Date()), token: randomBytes(16).toString("hex") };
  while (!options.signal?.aborted) {
    if (await create(path, own)) return FolderLock.hold(path, own, null, options);
    const found = await lastOf(path);
    if (!found) {
      await pause(retryMs, options.signal); // it was given back meanwhile
      continue;
    }
    const verdict = await judged(found, identity, options);
    if (verdict === "aborted") return null;
    if (verdict === "held") throw heldError(folder, found);
    if (verdict === "changed") continue;
    const successor = `${path}-${found.token}`;
    if (!(await create(successor, own))) continue; // another was faster
    if ((await lastOf(path))?.token === own.token) {
      await rename(successor, path);
      return FolderLock.hold(path, own, told(found), options);
    }
    await rm(successor, { force: true });
  }
  return null;
}

/** Waits, until the signal at most. */
async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  await sleep(ms, undefined, signal ? { signal } : {}).catch(() => undefined);
}

/** A folder's lock that this process holds. */
export class FolderLock {
  private constructor(
    readonly path: string,
    /** Of the holder that this process took over from, in words; null where there was none. */
    readonly replaced: string | null,
    readonly holder: Holder,
    /** Open for as long as the lock is held: its number is then no other file's. */
    private readonly file: FileHandle,
    private readonly number: string,
    private readonly stopHeartbeat: () => Promise<void>,
  ) {}

  static async hold(path: string, holder: Holder, replaced: string | null, options: LockOptions): Promise<FolderLock> {
    const file = await open(path, "r");
    const number = fileNumber(await file.stat({ bigint: true }));
    const [before, after] = textOf(holder);
    const everyMs = (options.staleMs ?? staleAfterMs) / 10;
    const stop = startHeartbeat({ path, number, before, after, everyMs }, () => options.onLost?.());
    // Successors of dead holders, and of processes that came too late.
    for (const name of await readdir(dirname(path)))
      if (name.startsWith(`${lockName}-`) && name !== `${lockName}-${holder.token}`) await rm(join(dirname(path), name), { force: true });
    return new FolderLock(path, replaced, holder, file, number, stop);
  }

  /** Whether the lock is still this process's. */
  isHeld(): boolean {
    const found = statSync(this.path, { bigint: true, throwIfNoEntry: false });
    return found !== undefined && fileNumber(found) === this.number;
  }

  /** Ends the heartbeat; the lock is then to be removed. */
  async stop(): Promise<void> {
    await this.stopHeartbeat();
    await this.file.close();
  }
}

type Verdict = "held" | "stale" | "changed" | "aborted";

async function judged(found: Found, identity: ProcessIdentity, options: LockOptions): Promise<Verdict> {
  const { holder } = found;
  if (holder?.machine === identity.machine) {
    const runs = isRunning(holder);
    if (runs !== null) return runs ? "held" : "stale";
  }
  const { staleMs = staleAfterMs, signal } = options;
  options.onWait?.(told(found));
  const from = performance.now();
  do {
    await pause(staleMs / 60, signal);
    if (signal?.aborted) return "aborted";
    const now = await read(found.path);
    if (now?.token !== found.token) return "changed";
    if (now.text !== found.text) return "held";
  } while (performance.now() - from < staleMs);
  return "stale";
}

/** The last of the chain of successors that begins with the lock; null where there is no lock. Rejects with UsageError where the chain has no end. */
async function lastOf(path: string): Promise<Found | null> {
  let last = await read(path);
  const seen = new Set<string>();
  for (let next = last; next; next = await read(`${path}-${last?.token}`)) {
    // A process makes its token when the one that it succeeds is there already.
    if (seen.has(next.token))
      throw new UsageError(`${next.path} names a lock that comes before it, which no lowrank wrote. Remove it and run the command again.`);
    seen.add(next.token);
    last = next;
  }
  return last;
}

/** A lock file; null where there is none. Rejects with UsageError where what is there is not a file, which no process made. */
async function read(path: string): Promise<Found | null> {
  try {
    const info = await lstat(path);
    if (!info.isFile())
      throw new UsageError(`${path} is ${kindOf(info)} and not the lock of a process. Remove it and run the command again.`);
    return foundIn(path, await readFile(path, "utf8"));
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ESTALE") return null;
    throw fileError(path, "the folder's lock cannot be read", error);
  }
}

function kindOf(info: Stats): string {
  return info.isSymbolicLink() ? "a symbolic link" : info.isDirectory() ? "a folder" : "a device or a pipe";
}

function foundIn(path: string, text: string): Found {
  const holder = holderIn(text);
  return {
    path,
    text,
    holder,
    token:
      holder?.token ??
      createHash("sha256")
        .update(`${basename(path)}\n${text}`)
        .digest("hex")
        .slice(0, 32),
  };
}

function holderIn(text: string): Holder | null {
  try {
    return holderSchema.parse(JSON.parse(text));
  } catch {
    return null; // of a file system without links, or of a hand: it is judged by whether it changes
  }
}

/** A lock's text before and after the number of the beat. */
function textOf(holder: Holder): readonly [before: string, after: string] {
  const text = JSON.stringify({ ...holder, beat: "" });
  return [text.slice(0, -2), `"}\n`];
}

/** Creates a lock file that is whole from its first moment; false where there is one. */
async function create(path: string, holder: Holder): Promise<boolean> {
  const folder = dirname(path);
  const text = textOf(holder).join("0".repeat(beatDigits));
  const temporary = join(folder, temporaryName(basename(path)));
  try {
    try {
      await writeFile(temporary, text, { flag: "wx" });
      await link(temporary, path);
      return true;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // NFS may repeat a link that was made and report the second.
      if (code === "EEXIST") return (await read(path))?.token === holder.token;
      if (!["EPERM", "ENOTSUP", "ENOSYS", "EOPNOTSUPP", "EMLINK", "EISDIR", "UNKNOWN"].includes(code ?? "")) throw error;
    } finally {
      await rm(temporary, { force: true });
    }
    // A file system without links: the file is created once as well, though not whole at once.
    await writeFile(path, text, { flag: "wx" });
    return true;
  } catch (error) {
    if (error instanceof UsageError) throw error;
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw fileError(folder, "the folder cannot be written", error, {
      ENOENT: "The folder is gone or takes no files: choose another folder.",
    });
  }
}

const timeOf = (date: Date): string => `${date.toISOString().slice(0, 19).replace("T", " ")} UTC`;

function told({ holder }: Found): string {
  return holder === null
    ? "a process that its lock does not name"
    : `process ${holder.pid} on ${holder.host} (lowrank ${holder.command}), since ${holder.since}`;
}

function heldError(folder: string, found: Found): UsageError {
  return new UsageError(`${folder} is in use by ${told(found)}. Wait for its end, or give another --out.`);
}
