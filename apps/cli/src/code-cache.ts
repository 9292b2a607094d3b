import { createHash } from "node:crypto";
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { cachedDataVersionTag } from "node:v8";
import { Script } from "node:vm";

/** What stands in front of V8's data in a file: a digest of that, of the program and of V8's version and flags. */
const digestBytes = 32;
/** A file is written anew after a day, with what commands of that day have compiled beside, and removed after thirty. */
const dayMs = 86_400_000;
const keptDays = 30;

/** A program that is compiled, and what keeps its code for the next process. */
export interface CachedProgram {
  readonly script: Script;
  /** Whether V8 took code from the cache. */
  readonly isCached: boolean;
  /** Writes what V8 has compiled of the program until now, once, where the cache lacks it; nothing where there can be no cache. Returns whether it wrote. */
  keep(): boolean;
}

export interface CachedProgramOptions {
  /** A script in ASCII, without `import()`. */
  readonly path: string;
  /** What of the program is used, in letters and dashes: what one command compiles is of no use to another. */
  readonly use: string;
  /** Null for none. */
  readonly folder: string | null;
}

/**
 * Where compiled code is kept: in the user's cache, $XDG_CACHE_HOME or ~/.cache; null where the user has no folder of their own, and where
 * NODE_DISABLE_COMPILE_CACHE is set, by which Node leaves its own aside.
 */
export function codeFolder(env: NodeJS.ProcessEnv = process.env): string | null {
  if (env["NODE_DISABLE_COMPILE_CACHE"]) return null;
  return orNull(() => join(env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "lowrank", "code"));
}

/**
 * Compiles a program, from the cache where it holds the very program's code for this V8 and its flags. V8 compiles a function when it is first called,
 * so what is kept after a use holds the functions of that use. Damaged files, and those of other users, count as none. Throws where the program cannot be read or has no syntax.
 */
export function cachedProgram({ path, use, folder }: CachedProgramOptions): CachedProgram {
  const source = readFileSync(path);
  const tag = cachedDataVersionTag();
  const begun = createHash("sha256").update(`${tag} `).update(source);
  const digestOf = (data: Uint8Array): Buffer => begun.copy().update(data).digest();
  const file = folder === null ? null : join(folder, `${use}-${createHash("sha256").update(`${tag} ${path}`).digest("hex").slice(0, 16)}`);
  const kept = file === null ? null : orNull(() => readOwn(file));
  const data = kept?.bytes.subarray(digestBytes);
  const isWhole = kept !== null && data !== undefined && digestOf(data).equals(kept.bytes.subarray(0, digestBytes));
  const script = new Script(source.toString("latin1"), {
    filename: path,
    ...(isWhole && { cachedData: data }),
  });
  const isCached = isWhole && script.cachedDataRejected === false;
  let isDue = !isCached || Date.now() - kept.writtenMs > dayMs;
  return {
    script,
    isCached,
    keep() {
      // Code that was compiled under other flags than the next process has would be refused each time.
      if (folder === null || file === null || !isDue || cachedDataVersionTag() !== tag) return false;
      isDue = false;
      const made = script.createCachedData();
      return orNull(() => writeOwn(folder, file, [digestOf(made), made])) !== null;
    },
  };
}

/** The bytes of a file that is this user's own, and when they were written. */
function readOwn(path: string): { readonly bytes: Buffer; readonly writtenMs: number } | null {
  const handle = openSync(path, "r");
  try {
    const info = fstatSync(handle);
    const isOwn = process.getuid === undefined || info.uid === process.getuid();
    return isOwn && info.isFile() ? { bytes: readFileSync(handle), writtenMs: info.mtimeMs } : null;
  } finally {
    closeSync(handle);
  }
}

/** Puts a whole file in the place of what was there, whoever reads it meanwhile, and removes what nobody has written for long. */
function writeOwn(folder: string, path: string, parts: readonly Uint8Array[]): true {
  // One by one: Node's own recursive mkdir never returns below /proc.
  for (const part of [dirname(dirname(folder)), dirname(folder), folder]) if (!existsSync(part)) mkdirSync(part, { mode: 0o700 });
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    writeFileSync(temporary, Buffer.concat(parts), { flag: "w", mode: 0o600 });
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
  for (const name of readdirSync(folder)) {
    const other = join(folder, name);
    if (Date.now() - statSync(other).mtimeMs > keptDays * dayMs) rmSync(other, { force: true });
  }
  return true;
}

/** Null where the file system does not allow it: no such file, a full disk, a home that is read-only. A cache may be absent. */
function orNull<T>(attempt: () => T): T | null {
  try {
    return attempt();
  } catch (error) {
    if (error instanceof Error && "code" in error && typeof error.code === "string") return null;
    throw error;
  }
}
