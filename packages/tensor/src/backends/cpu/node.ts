import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import type { CpuEnvironment } from "./environment.js";

/** The environment of Node: worker threads that do not keep the process alive. LOWRANK_THREADS sets how many threads compute. */
export function nodeEnvironment(): CpuEnvironment {
  const asked = Number(process.env["LOWRANK_THREADS"]);
  return {
    threadCount: Number.isInteger(asked) && asked >= 1 ? asked : availableParallelism(),
    mayBlock: true,
    spawn: (program, data) => {
      const worker = new Worker(`const { workerData: data } = require("node:worker_threads");${program}`, { eval: true, workerData: data });
      worker.unref();
      return { terminate: () => void worker.terminate() };
    },
  };
}
