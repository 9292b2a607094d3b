import { availableParallelism } from "node:os";
import { setFlagsFromString } from "node:v8";
import { Worker } from "node:worker_threads";
import { knowsRelaxedSimd } from "../../kernels/wasm/assembler.js";
import type { CpuEnvironment } from "./environment.js";

/** Node 20's V8 (11.3) has the relaxed vector instructions behind a flag, one version before they came without. */
function relaxedSimd(): boolean {
  if (!knowsRelaxedSimd()) setFlagsFromString("--experimental-wasm-relaxed-simd");
  return knowsRelaxedSimd();
}

/** The environment of Node: worker threads that do not keep the process alive. LOWRANK_THREADS sets how many threads compute. */
export function nodeEnvironment(): CpuEnvironment {
  const asked = Number(process.env["LOWRANK_THREADS"]);
  return {
    threadCount: Number.isInteger(asked) && asked >= 1 ? asked : availableParallelism(),
    mayBlock: true,
    hasRelaxedSimd: relaxedSimd(),
    spawn: (program, data) => {
      const worker = new Worker(`const { workerData: data } = require("node:worker_threads");${program}`, { eval: true, workerData: data });
      worker.unref();
      return { terminate: () => void worker.terminate() };
    },
  };
}
