import type * as Files from "node:fs";
import { Worker } from "node:worker_threads";

/** What the thread is started with. */
interface Beats {
  readonly path: string;
  /** The lock file's own number: the file at `path` is another one when somebody has taken over. */
  readonly number: string;
  /** The file's text before and after the number of the beat. */
  readonly before: string;
  readonly after: string;
  readonly everyMs: number;
}

/** What tells a file from all others that are there. */
export function fileNumber({ dev, ino }: Files.BigIntStats): string {
  return `${dev} ${ino}`;
}

/** Digits of a beat: the file keeps its length, so that a reader never sees it cut. */
export const beatDigits = 10;

/**
 * Changes a lock file every `everyMs` from a thread of its own, whatever the main thread computes. Calls `onLost` once when the file at the
 * path is not ours any more. The function that is returned ends the thread.
 */
export function startHeartbeat(beats: Beats, onLost: () => void): () => Promise<void> {
  const program = `(${beat.toString()})(require("node:fs"), require("node:worker_threads"), ${fileNumber.toString()})`;
  const worker = new Worker(program, {
    eval: true,
    workerData: { ...beats, digits: beatDigits },
    stdout: false,
    stderr: false,
    execArgv: [],
  });
  worker.once("message", onLost);
  worker.once("error", onLost);
  worker.unref();
  return async () => {
    worker.off("message", onLost);
    worker.off("error", onLost);
    await worker.terminate();
  };
}

/** Runs in the thread, from its text: it may use nothing but what it is given. The file is written in place, so that a lock that was taken over is not written over. */
function beat(
  fs: typeof Files,
  threads: { readonly workerData: unknown; readonly parentPort: { postMessage(message: string): void } | null },
  numberOf: typeof fileNumber,
): void {
  const { path, number, before, after, everyMs, digits } = threads.workerData as Beats & { readonly digits: number };
  let count = 0;
  const timer = setInterval(() => {
    try {
      if (numberOf(fs.statSync(path, { bigint: true })) !== number) throw new Error("another file");
      const file = fs.openSync(path, "r+");
      try {
        if (numberOf(fs.fstatSync(file, { bigint: true })) !== number) throw new Error("another file");
        count += 1;
        fs.writeSync(file, before + String(count).padStart(digits, "0") + after, 0);
        // To the server, where the file lies on one.
        fs.fdatasyncSync(file);
      } finally {
        fs.closeSync(file);
      }
    } catch (error) {
      // A full disk or a busy server is not a loss of the lock; the next beat tries again.
      const code = error instanceof Error && "code" in error ? String(error.code) : "ENOENT";
      if (code !== "ENOENT" && code !== "ESTALE" && code !== "ENOTDIR") return;
      clearInterval(timer);
      threads.parentPort?.postMessage("lost");
    }
  }, everyMs);
}
