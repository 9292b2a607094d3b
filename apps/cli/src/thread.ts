import { parentPort, workerData } from "node:worker_threads";
import type { Makes } from "./command.js";
import { type EndSignal, Interruption } from "./interruption.js";
import type { Leftover } from "./leftovers.js";
import { runCli } from "./run.js";

/** What the main thread knows of where output goes. */
export interface Terminal {
  readonly isTTY: boolean;
  readonly columns: number | undefined;
}

export type OutputName = "stdout" | "stderr";

/** What the thread that runs the command is started with. */
export interface ThreadData {
  readonly args: readonly string[];
  /** The program's file as it was called. */
  readonly program: string;
  readonly terminals: Readonly<Record<OutputName, Terminal>>;
}

/** What the command's thread tells the main thread. */
export type FromThread =
  | { readonly kind: "write"; readonly to: OutputName; readonly data: string | Uint8Array }
  | { readonly kind: "started"; readonly makes: Makes }
  /** Whether code that is not JavaScript may be running, which cannot be stopped from outside. */
  | { readonly kind: "native"; readonly isNative: boolean }
  | { readonly kind: "leftover"; readonly leftover: Leftover | null };

/** What the main thread tells the command's thread. */
export type ToThread =
  | { readonly kind: "interrupt"; readonly by: EndSignal }
  /** Ends the thread as soon as it listens. */
  | { readonly kind: "end" }
  | { readonly kind: "resized"; readonly columns: number | undefined };

const port = parentPort;
if (!port) throw new Error("thread.js runs as a worker thread: lowrank starts with bin/lowrank.js.");
const { args, terminals } = workerData as ThreadData; // what `launch` gives
const tell = (message: FromThread): void => port.postMessage(message);

// One channel for both keeps them in order, which a thread's own streams do not.
for (const to of ["stdout", "stderr"] as const) {
  const write = (data: string | Uint8Array, encoding?: unknown, done?: unknown): boolean => {
    tell({ kind: "write", to, data });
    const then = typeof encoding === "function" ? encoding : done;
    if (typeof then === "function") queueMicrotask(() => then());
    return true;
  };
  Object.assign(process[to], { write, ...terminals[to] });
}

const interrupt = new AbortController();
port.on("message", (message: ToThread) => {
  if (message.kind === "interrupt") interrupt.abort(new Interruption(message.by));
  else if (message.kind === "end") process.exit();
  else for (const to of ["stdout", "stderr"] as const) if (process[to].isTTY) Object.assign(process[to], { columns: message.columns });
});
port.unref();

process.exitCode = await runCli(args, { signal: interrupt.signal, onStart: ({ makes }) => tell({ kind: "started", makes }) });
