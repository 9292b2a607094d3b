import { parentPort } from "node:worker_threads";
import { AdapterError } from "../../errors.js";
import { operate } from "../operations.js";
import type { Answer, Question } from "./threads.js";

const port = parentPort;
if (!port) throw new Error("linalg-worker.js runs as a worker thread.");

port.on("message", ({ name, args }: Question) => {
  try {
    port.postMessage({ kind: "result", result: operate(name, args) } satisfies Answer);
  } catch (error) {
    const { message } = error as Error; // nothing else is thrown here
    port.postMessage({ kind: error instanceof AdapterError ? "refused" : "failed", message } satisfies Answer);
  }
});
