import { parentPort, workerData } from "node:worker_threads";
import type { Command } from "./command.js";
import { Interruption } from "./interruption.js";
import type { FromThread, ThreadData, ToThread } from "./messages.js";
import { runCli } from "./run.js";

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

let started: string | null = null;
/** The name of the command that runs; null while none does. */
export const startedCommand = (): string | null => started;
const onStart = ({ name, makes }: Command): void => {
  started = name;
  tell({ kind: "started", makes });
};
/** Resolves when the command is over. */
export const ended: Promise<void> = runCli(args, { signal: interrupt.signal, onStart }).then((exitCode) => {
  process.exitCode = exitCode;
});
