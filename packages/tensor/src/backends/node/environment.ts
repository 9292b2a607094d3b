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
        ...(debugLevel() >= 1 ? { onKernel: printKernelTime } : {}),
      }),
    webgpu: async ({ budgetBytes, adapter }) =>
      createWebgpuBackend({
        gpu: await loadDawn(),
        ...(budgetBytes === undefined ? {} : { budgetBytes }),
        ...(adapter === undefined ? {} : { adapter }),
        ...(debugLevel() >= 1 ? { onKernel: printKernelTime } : {}),
        ...(debugLevel() >= 3 ? { onProgram: printProgram } : {}),
      }),
    // Without Dawn, or with a Dawn that finds nothing, "auto" is the cpu.
    hasGpu: () =>
      loadDawn().then(hasRealGpu, (error: unknown) => {
        if (error instanceof DeviceError) return false;
        throw error;
      }),
  });
}

function printKernelTime({ name, ms }: { readonly name: string; readonly ms: number }): void {
  debugPrint(`${ms.toFixed(3).padStart(9)} ms  ${name}`);
}

function printProgram({ name, code }: { readonly name: string; readonly code: string }): void {
  debugPrint(`// ${name}\n${code}\n`);
}
