import { randomBytes } from "node:crypto";
import { readFileSync, readlinkSync, rmSync } from "node:fs";
import { open, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { fileError, makeFolder } from "@lowrank/tensor";
import { pause } from "./retry.js";

/** The file by which processes of Lowrank keep each other out of a repository's downloads. Python's locks, which are flocks, lie beside it. */
export const lockName = ".lowrank.lock";

const beatMs = 2000;
const lookMs = 200;

/**
 * Holds the lock of a folder while `use` runs; waits for whoever has it, and says so once. A holder that is gone is passed over: at once on this
 * machine, elsewhere when its file has not been touched for `staleMs`. What the lock guards is safe without it (each file is checked and renamed
 * into its place whole); it saves two processes the same transfer, and a part of a file from two writers.
 */
export async function withLock<T>(
  folder: string,
  {
    signal,
    onWait,
    staleMs = 20_000,
  }: { readonly signal?: AbortSignal | undefined; readonly onWait: () => void; readonly staleMs?: number },
  use: () => Promise<T>,
): Promise<T> {
  await makeFolder(folder);
  const path = join(folder, lockName);
  const own = JSON.stringify({ machine: machineName(), pid: process.pid, token: randomBytes(16).toString("hex") });
  let hasWaited = false;
  let seen = { text: "", touched: 0, at: performance.now() };
  while (!(await create(path, own))) {
    const found = await held(path);
    if (found === null) continue; // given back meanwhile
    if (found.text !== seen.text || found.touched !== seen.touched) seen = { ...found, at: performance.now() };
    if (isGone(found.text) || performance.now() - seen.at > staleMs) {
      await takeAway(path, found.text);
      continue;
    }
    if (!hasWaited) onWait();
    hasWaited = true;
    await pause(lookMs, signal);
  }
  const removed = (): void => {
    if (textOf(path) === own) rmSync(path, { force: true });
  };
  process.on("exit", removed);
  const beat = setInterval(() => {
    const now = new Date();
    utimes(path, now, now).catch(() => undefined); // gone: somebody took us for dead, which costs a transfer and no more
  }, beatMs);
  try {
    return await use();
  } finally {
    clearInterval(beat);
    process.off("exit", removed);
    removed();
  }
}

/** False where there is one. */
async function create(path: string, text: string): Promise<boolean> {
  try {
    const file = await open(path, "wx");
    await file.writeFile(text).finally(() => file.close());
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw fileError(path, "the cache cannot be written", error);
  }
}

async function held(path: string): Promise<{ readonly text: string; readonly touched: number } | null> {
  try {
    return { text: await readFile(path, "utf8"), touched: (await stat(path)).mtimeMs };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw fileError(path, "the cache's lock cannot be read", error);
  }
}

/** Removes a dead holder's lock, unless another process has done that and has its own there now. */
async function takeAway(path: string, text: string): Promise<void> {
  const aside = `${path}-${randomBytes(8).toString("hex")}`;
  await rename(path, aside).catch(() => undefined);
  const taken = textOf(aside);
  // Taken from a living one by mistake: it gets its file back, unless a third has made one.
  if (taken !== null && taken !== text) await create(path, taken);
  await rm(aside, { force: true });
}

function textOf(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

/** Whether the process that a lock names is certainly over. */
function isGone(text: string): boolean {
  try {
    const { machine, pid } = JSON.parse(text) as { readonly machine?: unknown; readonly pid?: unknown };
    if (machine !== machineName() || typeof pid !== "number") return false;
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ESRCH"; // no JSON: it is being written, or a hand's, and is judged by its age
  }
}

/** What processes share that see each other's numbers: this start of the machine and the container; the host's name where that is not known. */
function machineName(): string {
  try {
    return `${readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()} ${readlinkSync("/proc/self/ns/pid")}`;
  } catch {
    return hostname();
  }
}
