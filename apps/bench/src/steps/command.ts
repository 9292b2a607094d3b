import { spawn } from "node:child_process";

/** How a command went. */
export interface CommandRun {
  readonly seconds: number;
  /** Seconds until the output matched the pattern that was looked for; null when it never did. */
  readonly firstSeconds: number | null;
  readonly output: string;
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
    const take = (chunk: Buffer): void => {
      output += chunk.toString();
      if (first && firstSeconds === null && first.test(output)) firstSeconds = elapsed();
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) resolve({ seconds: elapsed(), firstSeconds, output });
      else reject(new Error(`${command} ${args.slice(0, 3).join(" ")} … ended with ${code}: ${output.trim().slice(-400)}`));
    });
  });
}
