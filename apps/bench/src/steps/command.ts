import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";

/** How a command went. */
export interface CommandRun {
  readonly seconds: number;
  /** Seconds until the output matched the pattern that was looked for; null when it never did. */
  readonly firstSeconds: number | null;
  readonly output: string;
  /** The most memory that the process had resident, read ten times a second; null where the system does not say (Linux does). */
  readonly peakBytes: number | null;
}

/** What /proc says of a process's largest resident set so far. */
function residentPeak(processId: number | undefined): number | null {
  try {
    const [, kilobytes] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${processId}/status`, "utf8")) ?? [];
    return kilobytes === undefined ? null : Number(kilobytes) * 1024;
  } catch {
    // Another system, or the process has ended.
    return null;
  }
}

/**
 * Runs a command to its end and times it from the start of the process; with `first`, also until its output matches. Rejects with the end of
 * the output when the status is not 0.
 */
export function runCommand(command: string, args: readonly string[], first: RegExp | null = null): Promise<CommandRun> {
  return new Promise((resolve, reject) => {
    const start = performance.now();
    const elapsed = (): number => (performance.now() - start) / 1000;
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    let firstSeconds: number | null = null;
    let peakBytes: number | null = null;
    const watch = setInterval(() => {
      peakBytes = residentPeak(child.pid) ?? peakBytes;
    }, 100);
    const take = (chunk: Buffer): void => {
      output += chunk.toString();
      if (first && firstSeconds === null && first.test(output)) firstSeconds = elapsed();
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    child.on("error", (error) => {
      clearInterval(watch);
      reject(error);
    });
    child.on("close", (code) => {
      clearInterval(watch);
      if (code === 0) resolve({ seconds: elapsed(), firstSeconds, output, peakBytes });
      else reject(new Error(`${command} ${args.slice(0, 3).join(" ")} … ended with ${code}: ${output.trim().slice(-400)}`));
    });
  });
}
