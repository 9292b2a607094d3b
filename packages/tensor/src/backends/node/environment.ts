import { debugLevel, debugPrint, setDebugLevel } from "../../schedule/debug.js";
import { DeviceError } from "../../tensor/errors.js";
import { createCpuBackend } from "../cpu/backend.js";
import { nodeEnvironment } from "../cpu/node.js";
import { setEnvironment } from "../select.js";
import { loadDawn } from "../webgpu/dawn.js";
import { createWebgpuBackend, hasRealGpu } from "../webgpu/index.js";

/** Makes `device()` work in Node: worker threads for the cpu, Dawn (the package `webgpu`) for WebGPU. */
export function setNodeEnvironment(): void {
  setDebugLevel(Number(process.env["LOWRANK_DEBUG"] ?? 0));
  setEnvironment({
    cpu: ({ threads, budgetBytes }) =>
      createCpuBackend({
        environment: nodeEnvironment(),
        ...(threads === undefined ? {} : { threadCount: threads }),
        ...(budgetBytes === undefined ? {} : { budgetBytes }),
        ...(debugLevel() >= 1
          ? { onKernel: ({ name, ms }: { name: string; ms: number }) => debugPrint(`${ms.toFixed(3).padStart(9)} ms  ${name}`) }
          : {}),
      }),
    webgpu: async ({ budgetBytes, adapter }) =>
      createWebgpuBackend({
        gpu: await loadDawn(),
        ...(budgetBytes === undefined ? {} : { budgetBytes }),
        ...(adapter === undefined ? {} : { adapter }),
      }),
    // Without Dawn, or with a Dawn that finds nothing, "auto" is the cpu.
    hasGpu: () =>
      loadDawn().then(hasRealGpu, (error: unknown) => {
        if (error instanceof DeviceError) return false;
        throw error;
      }),
  });
}
