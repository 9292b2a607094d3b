import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CheckpointError, makeFolder, temporaryName, temporaryNames, temporaryOf, writeFileAtomic } from "@lowrank/tensor";
import { afterAll, describe, expect, test } from "vitest";

const folder = mkdtempSync(join(tmpdir(), "lowrank-folders-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** A folder that is mounted read-only for the length of `use`; null where this process may not mount. */
async function onReadOnly<R>(use: (path: string) => Promise<R>): Promise<R | null> {
  const [from, to] = [join(folder, "from"), join(folder, "to")];
  mkdirSync(from, { recursive: true });
  mkdirSync(to, { recursive: true });
  try {
    execFileSync("mount", ["--bind", from, to], { stdio: "ignore" });
    execFileSync("mount", ["-o", "remount,ro,bind", to], { stdio: "ignore" });
  } catch {
    process.stderr.write("skipped: no right to mount a read-only folder here\n");
    return null;
  }
  try {
    return await use(to);
  } finally {
    execFileSync("umount", [to]);
  }
}

describe("makeFolder", () => {
  test("makes what is missing and says what it made", async () => {
    const path = join(folder, "a", "b");
    expect(await makeFolder(path)).toEqual([join(folder, "a"), path]);
    expect(await makeFolder(path)).toEqual([]);
  });
  test("is at peace with another that makes the same folders", async () => {
    const path = join(folder, "race", "b", "c");
    const made = await Promise.all(Array.from({ length: 8 }, () => makeFolder(path)));
    expect(made.flat().sort()).toEqual([join(folder, "race"), join(folder, "race", "b"), path]);
  });

  writeFileSync(join(folder, "file"), "");
  symlinkSync(join(folder, "nowhere"), join(folder, "link"));
  const refused = [
    ["a file", join(folder, "file"), /file is a file \(ENOTDIR\)/],
    ["a file in the path", join(folder, "file", "x", "y"), /file is a file \(ENOTDIR\)/],
    ["a link that leads nowhere", join(folder, "link"), /\(EEXIST\).*leads nowhere/],
    ["a link that leads nowhere in the path", join(folder, "link", "x"), /\(EEXIST\).*leads nowhere/],
  ] as const;
  for (const [name, path, says] of refused) {
    test(`${name} is refused, with the path and the reason`, async () => {
      const error: unknown = await makeFolder(path).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(CheckpointError);
      expect((error as CheckpointError).message).toMatch(says);
      expect((error as CheckpointError).message).toContain(path);
    });
  }

  // Node's recursive mkdir says ENOENT for the first and does not return from the second.
  test("a read-only file system is called that", async ({ skip }) => {
    const said = await onReadOnly(async (path) => {
      const one = makeFolder(join(path, "x", "y")).catch(String);
      const other = writeFileAtomic(join(path, "file"), "x").catch(String);
      return Promise.all([one, other]);
    });
    if (said === null) return skip();
    for (const text of said) expect(text).toMatch(/CheckpointError: .*\(EROFS\)\. The file system is read-only: choose another folder/);
  });
  test("/proc takes no folder, which is said at once", async ({ skip }) => {
    if (!existsSync("/proc/self")) return skip();
    await expect(makeFolder("/proc/lowrank/run")).rejects.toThrow(/\/proc\/lowrank\/run: .* The file system takes no folder there/);
    await expect(writeFileAtomic("/proc/lowrank/run/file", "x")).rejects.toThrow(/takes no folder there/);
  });
});

describe("temporary files", () => {
  test("say whose they are and which file they will be", () => {
    expect(temporaryOf(temporaryName("config.json"))).toEqual({ name: "config.json", pid: process.pid });
    expect(temporaryOf(".config.json.0123456789ab.tmp")).toEqual({ name: "config.json", pid: null });
    for (const other of ["config.json", ".config.json.tmp", ".0123456789ab.tmp", ".x.0123456789ag.tmp", "x.1-0123456789ab.tmp"])
      expect(temporaryOf(other)).toBeNull();
    expect(temporaryName("config.json")).toMatch(temporaryNames(process.pid));
    for (const other of [temporaryName("a").replace(String(process.pid), `1${process.pid}`), "a", ".a.tmp", ".a.0123456789ab.tmp"])
      expect(other).not.toMatch(temporaryNames(process.pid));
  });
  test("go when the process ends while one is written", async () => {
    const place = join(folder, "ending");
    const before = new Set(process.listeners("exit"));
    let goOn = (): void => {};
    const waiting = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    async function* slow(): AsyncGenerator<Uint8Array> {
      yield new Uint8Array(10);
      await waiting;
    }
    const writing = writeFileAtomic(join(place, "a"), slow());
    await expect.poll(() => existsSync(place) && readdirSync(place).length).toBe(1);
    const added = process.listeners("exit").filter((listener) => !before.has(listener));
    expect(added).toHaveLength(1);
    for (const listener of added) listener.call(process, 0);
    expect(readdirSync(place)).toEqual([]);
    goOn();
    await expect(writing).rejects.toThrow(/\(ENOENT\)\. The folder is gone or takes no files/);
    expect(process.listeners("exit").filter((listener) => !before.has(listener))).toEqual([]);
  });
});
