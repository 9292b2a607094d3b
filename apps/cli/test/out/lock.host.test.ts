import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { UsageError } from "../../src/failure.js";
import { removeLock } from "../../src/leftovers.js";
import { acquireLock, type FolderLock, type Holder, lockName } from "../../src/out/lock.js";
import { isRunning, thisProcess } from "../../src/out/process.js";

let folder = "";
const held: FolderLock[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "lowrank-lock-"));
});
afterEach(async () => {
  for (const lock of held.splice(0)) await giveBack(lock);
  rmSync(folder, { recursive: true, force: true });
});

async function giveBack(lock: FolderLock): Promise<void> {
  await lock.stop();
  if (existsSync(lock.path)) removeLock(lock.path, lock.holder.token);
}

type Options = Partial<Parameters<typeof acquireLock>[1]>;
async function take(options: Options = {}): Promise<FolderLock | null> {
  const lock = await acquireLock(folder, { command: "train", ...options });
  if (lock) held.push(lock);
  return lock;
}

const here = thisProcess();
const elsewhere = { host: "far", machine: "another machine", pid: 7, start: "70" };
/** A process that has ended, whose number may be free. */
const ended = { ...here, pid: Number(execFileSync("sh", ["-c", "echo $$"], { encoding: "utf8" })) };
const token = (i: number): string => i.toString(16).padStart(32, "0");

function writeLock(holder: Partial<Holder>, name = lockName): void {
  const whole: Holder = { ...ended, command: "train", since: "2026-01-02 03:04:05 UTC", token: token(0), ...holder };
  writeFileSync(join(folder, name), `${JSON.stringify({ ...whole, beat: "0000000000" })}\n`);
}
const files = (): string[] => readdirSync(folder).sort();

describe("a folder's lock", () => {
  test("keeps a second process out, which is told who holds it", async () => {
    const lock = await take();
    expect(lock?.replaced).toBeNull();
    const error: unknown = await take().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(UsageError);
    const { message } = error as UsageError;
    expect(message).toContain(`process ${process.pid} on ${here.host} (lowrank train), since ${lock?.holder.since}`);
    expect(message).toMatch(/since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC\. Wait for its end, or give another --out\.$/);
    expect(files()).toEqual([lockName]);
  });

  test("is gone when it is given back", async () => {
    await giveBack((await take()) as FolderLock);
    expect(files()).toEqual([]);
    expect(await take()).not.toBeNull();
  });

  const stale: readonly (readonly [name: string, holder: Partial<Holder>])[] = [
    ["of a process that has ended", {}],
    ["of a process whose number another one has", { pid: process.pid, start: "1" }],
    ["of a process that has ended, with a number that no process can have", { pid: 2 ** 40 }],
  ];
  test.each(stale)("%s is taken over at once, with a word", async (_, holder) => {
    writeLock(holder);
    const onWait = vi.fn();
    const lock = await take({ onWait });
    expect(onWait).not.toHaveBeenCalled();
    expect(lock?.replaced).toContain("(lowrank train), since 2026-01-02 03:04:05 UTC");
    expect(files()).toEqual([lockName]);
    await expect(take()).rejects.toThrow(`process ${process.pid}`);
  });

  test("of a process that was killed and that its parent has not waited for is taken over at once", async ({ skip }) => {
    if (!existsSync("/proc/self/stat")) return skip();
    const parent = spawn("sh", ["-c", "sleep 0.2 & echo $!; exec sleep 60"]);
    try {
      const pid = Number(await new Promise((resolve) => parent.stdout.once("data", resolve)));
      await expect.poll(() => readFileSync(`/proc/${pid}/stat`, "utf8")).toContain(") Z ");
      const start = readFileSync(`/proc/${pid}/stat`, "utf8").split(" ")[21] ?? null;
      writeLock({ pid, start });
      expect((await take())?.replaced).toContain(`process ${pid}`);
    } finally {
      parent.kill("SIGKILL");
    }
  });

  test("of another machine that does not change is taken over after the time, by this process's clock", async () => {
    writeLock(elsewhere);
    const onWait = vi.fn();
    const from = performance.now();
    const lock = await take({ onWait, staleMs: 60 });
    expect(performance.now() - from).toBeGreaterThanOrEqual(60);
    expect(onWait).toHaveBeenCalledExactlyOnceWith("process 7 on far (lowrank train), since 2026-01-02 03:04:05 UTC");
    expect(lock?.replaced).toContain("process 7 on far");
  });

  test("of another machine that beats is held, and its holder is told after the first beat", async () => {
    const lock = await acquireLock(folder, { command: "compare", identity: elsewhere, staleMs: 300 });
    if (lock) held.push(lock);
    const from = performance.now();
    await expect(take({ staleMs: 60_000 })).rejects.toThrow("process 7 on far (lowrank compare)");
    expect(performance.now() - from).toBeLessThan(50_000);
  });

  test("beats while the main thread computes", async () => {
    await take({ staleMs: 50 });
    const text = (): string => readFileSync(join(folder, lockName), "utf8");
    const [first, length] = [text(), text().length];
    const until = performance.now() + 60_000;
    const seen = new Set([first]);
    // Without a turn of the event loop.
    while (seen.size < 4 && performance.now() < until) seen.add(text());
    expect(seen.size).toBe(4);
    for (const each of seen) expect(each).toHaveLength(length);
  });

  test("that a file system without links has cut, or a hand has changed, is judged by whether it changes", async () => {
    for (const text of ["", "{", JSON.stringify({ ...ended, token: "../../x" }), "null"]) {
      writeFileSync(join(folder, lockName), text);
      const lock = await take({ staleMs: 30 });
      expect(lock?.replaced).toBe("a process that its lock does not name");
      expect(files()).toEqual([lockName]);
      await giveBack(lock as FolderLock);
    }
  });

  test("is not waited for when the signal comes", async () => {
    writeLock(elsewhere);
    const stop = new AbortController();
    const waiting = take({ signal: stop.signal, onWait: () => stop.abort() });
    expect(await waiting).toBeNull();
    expect(JSON.parse(readFileSync(join(folder, lockName), "utf8"))).toMatchObject({ host: "far" });
    expect(files()).toEqual([lockName]);
  });

  const inPlace: readonly (readonly [what: string, name: string, make: (path: string) => void, says: RegExp])[] = [
    ["a link that leads nowhere", lockName, (path) => fs.symlinkSync("nowhere", path), /\.lock is a symbolic link .*Remove it/],
    ["a link in a circle", lockName, (path) => fs.symlinkSync(path, path), /\.lock is a symbolic link .*Remove it/],
    ["a folder", lockName, (path) => fs.mkdirSync(path), /\.lock is a folder .*Remove it/],
    ["a pipe", lockName, (path) => void execFileSync("mkfifo", [path]), /\.lock is a device or a pipe .*Remove it/],
    [
      "a lock, with a link that leads nowhere in its successor's place,",
      `${lockName}-${token(1)}`,
      (path) => fs.symlinkSync("nowhere", path),
      /\.lock-0*1 is a symbolic link .*Remove it/,
    ],
    [
      "a lock that succeeds itself",
      `${lockName}-${token(1)}`,
      () => writeLock({ token: token(1) }, `${lockName}-${token(1)}`),
      /\.lock-0*1 names a lock that comes before it.*Remove it/,
    ],
    [
      "a circle of locks",
      `${lockName}-${token(1)}`,
      (path) => {
        writeLock({ token: token(2) }, `${lockName}-${token(1)}`);
        fs.copyFileSync(join(folder, lockName), path.replace(token(1), token(2)));
      },
      /\.lock-0*2 names a lock that comes before it.*Remove it/,
    ],
  ];
  test.each(inPlace)("whose place has %s is refused with the way out, and nothing is changed", async (_, name, make, says) => {
    if (name !== lockName) writeLock({ token: token(1) });
    make(join(folder, name));
    const before = files();
    const error: unknown = await take({ signal: AbortSignal.timeout(2000) }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(UsageError);
    expect((error as UsageError).message).toMatch(says);
    expect(files()).toEqual(before);
  });

  test("is not taken once the signal has come", async () => {
    expect(await take({ signal: AbortSignal.abort() })).toBeNull();
    expect(files()).toEqual([]);
  });

  test("that is cut, and whose successor's is cut as well, is taken over", async () => {
    const digest = createHash("sha256").update(`${lockName}\n`).digest("hex").slice(0, 32);
    for (const name of [lockName, `${lockName}-${digest}`]) writeFileSync(join(folder, name), "");
    expect((await take({ staleMs: 30, signal: AbortSignal.timeout(20_000) }))?.replaced).toBe("a process that its lock does not name");
    expect(files()).toEqual([lockName]);
  });

  test("is one process's when many see that its holder has died", async () => {
    for (let round = 0; round < 8; round++) {
      writeLock({ token: token(round) });
      const all = await Promise.allSettled(Array.from({ length: 8 }, () => take()));
      const won = all.filter((each) => each.status === "fulfilled");
      expect(won).toHaveLength(1);
      for (const each of all) if (each.status === "rejected") expect(each.reason).toBeInstanceOf(UsageError);
      expect(files()).toEqual([lockName]);
      for (const lock of held.splice(0)) await giveBack(lock);
    }
  });

  test("is one process's when many begin at the same time", async () => {
    const all = await Promise.allSettled(Array.from({ length: 8 }, () => take()));
    expect(all.filter((each) => each.status === "fulfilled")).toHaveLength(1);
    expect(files()).toEqual([lockName]);
  });

  test("whose successor died before it took the place has a next one", async () => {
    writeLock({ token: token(1) });
    writeLock({ token: token(2) }, `${lockName}-${token(1)}`);
    writeLock({ token: token(3) }, `${lockName}-${token(9)}`); // of one that came too late
    const lock = await take();
    expect(lock?.replaced).not.toBeNull();
    expect(files()).toEqual([lockName]);
    expect(JSON.parse(readFileSync(join(folder, lockName), "utf8"))).toMatchObject({ token: lock?.holder.token });
  });

  test("whose successor lives is that one's", async () => {
    writeLock({ token: token(1) });
    writeLock({ ...here, token: token(2), command: "merge" }, `${lockName}-${token(1)}`);
    await expect(take()).rejects.toThrow(`process ${process.pid} on ${here.host} (lowrank merge)`);
    expect(files()).toHaveLength(2);
  });

  test("that another process took over is lost, and is not removed by the one that had it", async () => {
    const onLost = vi.fn();
    const lock = (await take({ staleMs: 50, onLost })) as FolderLock;
    expect(lock.isHeld()).toBe(true);
    writeLock({ ...elsewhere, token: token(5) }, "new");
    fs.renameSync(join(folder, "new"), join(folder, lockName));
    expect(lock.isHeld()).toBe(false);
    await vi.waitFor(() => expect(onLost).toHaveBeenCalledOnce(), 60_000);
    await giveBack(lock);
    expect(JSON.parse(readFileSync(join(folder, lockName), "utf8"))).toMatchObject({ host: "far", beat: "0000000000" });
  });

  test("of a folder that is removed is lost, though one that is made there next has the same number", async () => {
    const onLost = vi.fn();
    const lock = (await take({ staleMs: 50, onLost })) as FolderLock;
    rmSync(folder, { recursive: true });
    fs.mkdirSync(folder);
    writeLock(elsewhere);
    expect(lock.isHeld()).toBe(false);
    await vi.waitFor(() => expect(onLost).toHaveBeenCalledOnce(), 60_000);
    expect(lock.isHeld()).toBe(false);
  });

  test("cannot be taken where nothing can be written, which is said with the folder's name", async ({ skip }) => {
    if (!existsSync("/proc/self")) return skip();
    await expect(acquireLock("/proc/self", { command: "train" })).rejects.toThrow(
      /^\/proc\/self: the folder cannot be written \(E\w+\)\. .*choose another folder/,
    );
  });
});

describe("isRunning", () => {
  test("tells a process from the one that has its number later", () => {
    expect(isRunning(here)).toBe(true);
    expect(isRunning({ pid: here.pid, start: "another" })).toBe(false);
    expect(isRunning({ pid: here.pid, start: null })).toBeNull();
    expect(isRunning(ended)).toBe(false);
  });
});
