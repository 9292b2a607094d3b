import { SHARE_ENV, type Worker as Thread, Worker } from "node:worker_threads";
import type { Makes } from "./command.js";
import { describeFailure } from "./failure.js";
import { ignoresHangup } from "./hangup.js";
import { type EndSignal, signalCodes } from "./interruption.js";
import { type Leftover, removeLeftover } from "./leftovers.js";
import type { FromThread, OutputName, ThreadData, ToThread } from "./messages.js";
import { startedPath } from "./program.js";

/** After the first signal, in milliseconds; signals before that are the same one: npm hands on what the terminal has sent already. */
const acknowledgementMs = 250;
/** How long a thread that is to end may take by itself, and then where it is stopped, in milliseconds; a busy machine needs what an idle one does not. */
const endMs = 300;
const stopMs = 3000;
/** Errors that say that nobody reads any more. */
const goneCodes: ReadonlySet<string> = new Set([
  "EPIPE",
  "EIO",
  "ECONNRESET",
  "EBADF",
  "ERR_STREAM_DESTROYED",
  "ERR_STREAM_WRITE_AFTER_END",
]);

/**
 * Runs the command line in a thread of its own; resolves to the exit code. This thread does nothing but wait, so that it hears signals
 * however long the other computes, plans or reads, and writes what the other says, which therefore never waits for its reader.
 */
export function launch(args: readonly string[]): Promise<number> {
  return new Promise((resolve) => new Launch(args, resolve));
}

class Launch {
  readonly #thread: Thread;
  #leftover: Leftover | null = null;
  readonly #unread = new Set<OutputName>();
  #makes: Makes = "text";
  #isNative = false;
  #first: EndSignal | null = null;
  #isAcknowledged = false;
  #isEnding = false;
  #acknowledgement: NodeJS.Timeout | undefined;

  constructor(
    args: readonly string[],
    readonly done: (exitCode: number) => void,
  ) {
    const terminal = (to: OutputName): ThreadData["terminals"][OutputName] => ({
      isTTY: process[to].isTTY === true,
      columns: process[to].columns,
    });
    const workerData: ThreadData = { args, program: startedPath(), terminals: { stdout: terminal("stdout"), stderr: terminal("stderr") } };
    for (const to of ["stdout", "stderr"] as const) {
      process[to].on("error", (error) => this.#notWritten(to, error));
      process[to].on("resize", () => this.#tell({ kind: "resized", columns: process[to].columns }));
    }
    for (const by of Object.keys(signalCodes) as EndSignal[]) {
      const isIgnored = by === "SIGHUP" && ignoresHangup();
      process.on(by, isIgnored ? () => undefined : () => this.#onSignal(by));
    }
    // One environment: native code, such as the Vulkan loader, reads the process's own.
    this.#thread = new Worker(new URL("./thread.js", import.meta.url), { workerData, env: SHARE_ENV });
    this.#thread.on("message", (message: FromThread) => this.#hear(message));
    this.#thread.on("error", (error) => {
      this.#write("stderr", `${describeFailure(error, process.env["LOWRANK_DEBUG"] !== undefined).text}\n`);
    });
    this.#thread.on("exit", (code) => {
      if (this.#isEnding) return;
      clearTimeout(this.#acknowledgement);
      for (const by of Object.keys(signalCodes)) process.removeAllListeners(by);
      // A thread that ran out of memory removes nothing.
      if (this.#leftover) removeLeftover(this.#leftover);
      // Node's own codes, such as 13 for a promise that nothing will settle.
      this.done(code > 3 && !Object.values<number>(signalCodes).includes(code) ? 1 : code);
    });
  }

  #tell(message: ToThread): void {
    this.#thread.postMessage(message);
  }

  #hear(message: FromThread): void {
    if (message.kind === "write") this.#write(message.to, message.data);
    else if (message.kind === "started") this.#makes = message.makes;
    else if (message.kind === "native") this.#isNative = message.isNative;
    else this.#leftover = message.leftover;
  }

  #write(to: OutputName, data: string | Uint8Array): void {
    if (this.#unread.has(to)) return;
    try {
      process[to].write(data);
    } catch (error) {
      this.#notWritten(to, error);
    }
  }

  /** A reader that is gone ends what only speaks, as `lowrank inspect … | head` asks for, and nothing that writes files. */
  #notWritten(to: OutputName, error: unknown): void {
    if (this.#unread.has(to)) return;
    this.#unread.add(to);
    if (to === "stderr" || this.#makes !== "text") return;
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    if (goneCodes.has(code)) return void this.#end(0, "SIGTERM");
    this.#write("stderr", `error: the output could not be written (${code || String(error)}). Free some space, or write it elsewhere.\n`);
    void this.#end(2, "SIGTERM");
  }

  #onSignal(by: EndSignal): void {
    if (this.#isEnding) return;
    if (this.#makes !== "run") {
      this.#write("stderr", by === "SIGINT" ? "\nInterrupted.\n" : `\nEnded by ${by}.\n`);
      void this.#end(signalCodes[by], by);
    } else if (!this.#first) {
      this.#first = by;
      this.#tell({ kind: "interrupt", by });
      this.#acknowledgement = setTimeout(() => this.#acknowledge(by), acknowledgementMs);
    } else if (this.#isAcknowledged) {
      this.#write("stderr", "\nEnded at once. The last checkpoint is kept.\n");
      void this.#end(signalCodes[by], by);
    }
  }

  #acknowledge(by: EndSignal): void {
    if (this.#isEnding) return;
    this.#isAcknowledged = true;
    const again = by === "SIGINT" ? "Ctrl-C again" : `${by} again`;
    this.#write("stderr", `\nStopping after the step in progress, if any; ${again} ends at once.\n`);
  }

  /** Ends the process within a second, whatever the command is doing. */
  async #end(exitCode: number, by: EndSignal): Promise<void> {
    if (this.#isEnding) return;
    this.#isEnding = true;
    const exited = new Promise((resolve) => this.#thread.once("exit", () => resolve(true)));
    const within = (ms: number, ended: Promise<unknown>): Promise<unknown> =>
      Promise.race([ended, new Promise((resolve) => setTimeout(resolve, ms, false))]);
    this.#tell({ kind: "end" });
    let isOver = await within(endMs, exited);
    // Dawn aborts the process when JavaScript is taken away from under it.
    if (!isOver && !this.#isNative)
      isOver = await within(
        stopMs,
        this.#thread.terminate().then(() => true),
      );
    if (this.#leftover) removeLeftover(this.#leftover);
    if (isOver) process.exit(exitCode);
    // Nothing else ends code that is not JavaScript. A shell reports the same number.
    process.removeAllListeners(by);
    process.kill(process.pid, by);
  }
}
