import { isMainThread, parentPort } from "node:worker_threads";
import type { FromThread } from "./messages.js";

/** Tells the main thread, which ends the command where it must; nothing where the command runs without one, as in tests. */
export function tellMainThread(message: FromThread): void {
  if (!isMainThread) parentPort?.postMessage(message);
}
