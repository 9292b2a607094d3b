import { readFileSync, readlinkSync } from "node:fs";
import { basename } from "node:path";

/**
 * Whether SIGHUP was ignored when the process started, as under nohup. Node sets it back to its default before any JavaScript runs, so that
 * its own state says nothing; what says it is the parent, whose ignored signals a child inherits, and the traces that nohup leaves.
 */
export function ignoresHangup(): boolean {
  return (
    ignoring("self") ||
    ignoring(String(process.ppid)) ||
    basename(process.env["_"] ?? "") === "nohup" ||
    [1, 2].some((fd) => basename(linkOf(`/proc/self/fd/${fd}`)) === "nohup.out") ||
    // GNU's puts a /dev/null that cannot be read in the place of a terminal.
    (linkOf("/proc/self/fd/0") === "/dev/null" && /^flags:\s*\d*1$/m.test(textOf("/proc/self/fdinfo/0")))
  );
}

/** Whether a process ignores SIGHUP; false where nobody can say. */
function ignoring(pid: string): boolean {
  const [, mask = "0"] = /^SigIgn:\s*([0-9a-f]+)$/m.exec(textOf(`/proc/${pid}/status`)) ?? [];
  return (Number.parseInt(mask.slice(-1), 16) & 1) === 1; // SIGHUP is number 1
}

/** Files of /proc, which other systems do not have, nor every container. */
function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}
