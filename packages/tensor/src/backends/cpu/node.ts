import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { setFlagsFromString } from "node:v8";
import { Worker } from "node:worker_threads";
import { knowsRelaxedSimd } from "../../kernels/wasm/assembler.js";
import { type CpuEnvironment, checkThreadCount } from "./environment.js";

/** Node 20's V8 (11.3) has the relaxed vector instructions behind a flag, one version before they came without. */
function relaxedSimd(): boolean {
  if (!knowsRelaxedSimd()) setFlagsFromString("--experimental-wasm-relaxed-simd");
  return knowsRelaxedSimd();
}

/** How many threads compute: LOWRANK_THREADS, or one a core that the process may use. Throws DeviceError where that is not a number of threads. */
export function threadCount(): number {
  // An empty variable counts as unset.
  const asked = process.env["LOWRANK_THREADS"] || null;
  return asked === null ? coreCount() : threadCountOf(asked);
}

/** The environment of Node: worker threads that do not keep the process alive, `threadCount` of them. Throws DeviceError as that does. */
export function nodeEnvironment(): CpuEnvironment {
  return {
    threadCount: threadCount(),
    mayBlock: true,
    hasRelaxedSimd: relaxedSimd(),
    spawn: (program, data) => {
      // None of the process's flags: under --input-type=module the program would not be what it is.
      const worker = new Worker(`const { workerData: data } = require("node:worker_threads");${program}`, {
        eval: true,
        workerData: data,
        execArgv: [],
      });
      worker.unref();
      const failed = new Promise<string>((resolve) => void worker.once("error", (error) => resolve(String(error))));
      return { failed, terminate: () => void worker.terminate() };
    },
  };
}

function threadCountOf(text: string): number {
  const count = /^\d+$/.test(text) ? Number(text) : text;
  checkThreadCount(count, "LOWRANK_THREADS");
  return count;
}

/**
 * How many threads the process can run at a time: the cores that it may run on, and no more than its control groups (containers) allow of
 * their time, rounded up. Node itself counts the former alone.
 */
export function coreCount(cores: number = availableParallelism(), read: (path: string) => string | null = readText): number {
  return Math.max(1, Math.min(cores, Math.ceil(allowedCores(read))));
}

/** Cores' worth of time that the control groups of the process allow; infinity where none is limited. Linux, cgroups 1 and 2. */
function allowedCores(read: (path: string) => string | null): number {
  let least = Number.POSITIVE_INFINITY;
  for (const line of (read("/proc/self/cgroup") ?? "").split("\n")) {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (controllers === undefined || path === undefined) continue;
    const isUnified = controllers === "";
    if (!isUnified && !controllers.split(",").includes("cpu")) continue;
    const mounts = isUnified ? ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] : ["/sys/fs/cgroup/cpu", `/sys/fs/cgroup/${controllers}`];
    // A group is limited by its parents too. In a container the path may be the host's, while its own group is at the root.
    for (const mount of mounts) {
      for (const folder of withParents(path)) {
        const cores = isUnified ? unifiedLimit(`${mount}${folder}`, read) : separateLimit(`${mount}${folder}`, read);
        least = Math.min(least, cores);
      }
    }
  }
  return least;
}

/** "/a/b" → "/a/b", "/a", "". */
function withParents(path: string): string[] {
  const parts = path.split("/").filter((part) => part !== "");
  return Array.from({ length: parts.length + 1 }, (_, i) =>
    parts
      .slice(0, parts.length - i)
      .map((part) => `/${part}`)
      .join(""),
  );
}

/** cpu.max holds the microseconds of each period, or "max", and the period. */
function unifiedLimit(folder: string, read: (path: string) => string | null): number {
  const [quota, period] = (read(`${folder}/cpu.max`) ?? "").trim().split(" ").map(Number);
  return share(quota, period);
}

function separateLimit(folder: string, read: (path: string) => string | null): number {
  const [quota, period] = ["cpu.cfs_quota_us", "cpu.cfs_period_us"].map((name) => Number(read(`${folder}/${name}`) ?? Number.NaN));
  return share(quota, period);
}

function share(quota = Number.NaN, period = Number.NaN): number {
  return quota > 0 && period > 0 ? quota / period : Number.POSITIVE_INFINITY;
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null; // no such group, or not Linux
  }
}
