import { execFileSync } from "node:child_process";
import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";

/** A process, told from any other that had or will have its number. */
export interface ProcessIdentity {
  readonly host: string;
  /** What two processes share that see each other's numbers: this start of the machine, and the container. */
  readonly machine: string;
  readonly pid: number;
  /** When it started, in the system's own words; null where they are not known. */
  readonly start: string | null;
}

/** The process that runs this. */
export function thisProcess(): ProcessIdentity {
  return { host: hostname(), machine: machineName(), pid: process.pid, start: startOf(process.pid) };
}

/** Whether a process of this machine still runs; null where its number is taken and nothing says by whom. */
export function isRunning({ pid, start }: Pick<ProcessIdentity, "pid" | "start">): boolean | null {
  if (!isTaken(pid)) return false;
  const now = startOf(pid);
  if (now === ended) return false;
  return start === null || now === null ? null : now === start;
}

/** Whether some process has the number; a process that this user may not signal counts. */
export function isTaken(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** Linux's start of the machine and namespace of process numbers; elsewhere the host's name, as numbers are the host's. */
function machineName(): string {
  try {
    return `${readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()} ${readlinkSync("/proc/self/ns/pid")}`;
  } catch {
    return hostname();
  }
}

/** In the place of a start: the process is ending, or has ended and its parent has not looked yet. */
const ended = "ended";

/** When a process started: Linux's /proc in ticks since the machine's start, `ps` elsewhere; null where neither says. */
function startOf(pid: number): string | null {
  try {
    // proc_pid_stat(5): the second field is a name in brackets that may hold anything; the 3rd is the state, the 9th the flags, the 22nd the start.
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    // PF_EXITING: a process that was killed gives its memory back, which takes a while, and does nothing else.
    return fields[0] === "Z" || fields[0] === "X" || (Number(fields[6]) & 4) !== 0 ? ended : (fields[19] ?? null);
  } catch {
    return process.platform === "linux" || process.platform === "win32" ? null : startByPs(pid);
  }
}

function startByPs(pid: number): string | null {
  try {
    const env = { ...process.env, LC_ALL: "C", TZ: "UTC" };
    const [state = "", ...start] = execFileSync("ps", ["-o", "stat=,lstart=", "-p", String(pid)], { encoding: "utf8", env, timeout: 5000 })
      .trim()
      .split(/\s+/);
    return state.startsWith("Z") ? ended : start.join(" ") || null;
  } catch {
    return null;
  }
}
