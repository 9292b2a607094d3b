import type { KernelTime } from "../../graph/backend.js";
import { setCollector } from "../../graph/collector.js";
import { debugLevel, debugPrint, setDebugLevel } from "../../schedule/debug.js";
import { createCpuBackend } from "../cpu/backend.js";
import { nodeEnvironment } from "../cpu/node.js";
import { type DeviceOptions, setEnvironment } from "../select.js";
import { loadDawn } from "../webgpu/dawn.js";
import { createWebgpuBackend } from "../webgpu/index.js";
import { nodeCollector } from "./collector.js";
import { fileTunings } from "./file-tunings.js";
import { hardwareGpu } from "./hardware.js";

/** Makes `device()` work in Node: worker threads for the cpu, Dawn (the package `webgpu`) for WebGPU; garbage can be collected at once. */
export function setNodeEnvironment(): void {
  setDebugLevel(Number(process.env["LOWRANK_DEBUG"] ?? 0));
  setCollector(nodeCollector);
  setEnvironment({
    cpu: ({ threads, budgetBytes, onKernel }) =>
      createCpuBackend({
        environment: nodeEnvironment(),
        ...(threads === undefined ? {} : { threadCount: threads }),
        ...(budgetBytes === undefined ? {} : { budgetBytes }),
        ...timing(onKernel),
      }),
    webgpu: async ({ budgetBytes, adapter, onKernel, tuning }) =>
      createWebgpuBackend({
        gpu: (adapter === undefined ? await hardwareGpu() : null) ?? (await loadDawn()),
        tunings: fileTunings(),
        ...(tuning === undefined ? {} : { tuning }),
        ...(budgetBytes === undefined ? {} : { budgetBytes }),
        ...(adapter === undefined ? {} : { adapter }),
        ...timing(onKernel),
        ...(debugLevel() >= 3 ? { onProgram: printProgram } : {}),
      }),
    hasGpu: async () => (await hardwareGpu()) !== null,
  });
}

/** Who is told of kernel times: the caller, and with LOWRANK_DEBUG=1 the terminal. */
function timing(onKernel: DeviceOptions["onKernel"]): { readonly onKernel?: (time: KernelTime) => void } {
  if (debugLevel() < 1) return onKernel ? { onKernel } : {};
  return {
    onKernel(time) {
      printKernelTime(time);
      onKernel?.(time);
    },
  };
}

function printKernelTime({ name, ms }: KernelTime): void {
  debugPrint(`${ms.toFixed(3).padStart(9)} ms  ${name}`);
}

function printProgram({ name, code }: { readonly name: string; readonly code: string }): void {
  debugPrint(`// ${name}\n${code}\n`);
}
