import { parentPort, workerData } from "node:worker_threads";
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

process.exitCode = await runCli(args, { signal: interrupt.signal, onStart: ({ makes }) => tell({ kind: "started", makes }) });
