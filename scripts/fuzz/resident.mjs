// How much memory one mutant takes: the largest resident size while it is read, over that at the process's start.
import { readFileSync, writeFileSync } from "node:fs";

/** What a process has beyond its start before what earlier mutants left is collected, so that it does not count as the next one's. */
const collectedAt = 16 * 2 ** 20;

/** Bytes under a name of /proc/self/status; null where there is none. @param {"VmRSS" | "VmHWM"} name */
function statusBytes(name) {
  try {
    const kilobytes = new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    return kilobytes === undefined ? null : 1024 * Number(kilobytes);
  } catch {
    return null;
  }
}

/** The peak begins anew at what is resident now (proc(5), clear_refs). */
const reset = () => writeFileSync("/proc/self/clear_refs", "5");

/** Whether the system lets a process do that: others have no such file, and some containers keep it closed. */
function mayReset() {
  try {
    reset();
    return true;
  } catch {
    return false;
  }
}

/**
 * Meters of this process: `begin` before a mutant, `growth` behind it gives the bytes, null where the system does not tell.
 * @returns {{ begin: () => void, growth: () => number | null }}
 */
export function residentMeter() {
  globalThis.gc?.();
  const start = mayReset() ? statusBytes("VmRSS") : null;
  return {
    begin() {
      if (start === null) return;
      if ((statusBytes("VmRSS") ?? 0) > start + collectedAt) globalThis.gc?.();
      reset();
    },
    growth() {
      const peak = statusBytes("VmHWM");
      return start === null || peak === null ? null : peak - start;
    },
  };
}
