import type { Backend, KernelTime, Tuning } from "../graph/backend.js";
import { Device } from "../graph/device.js";
import { planExecutor } from "../schedule/plan-executor.js";
import { DeviceError } from "../tensor/errors.js";
import { createCpuBackend } from "./cpu/backend.js";
import { checkThreadCount } from "./cpu/environment.js";
import { probedEnvironment } from "./cpu/probe.js";
import { referenceDevice } from "./reference.js";
import { createWebgpuBackend, hasRealGpu } from "./webgpu/index.js";
import { indexedTunings } from "./webgpu/indexed-tunings.js";

/** How an environment (Node, a browser) makes backends; set by the package's entry files. */
export interface Environment {
  cpu(options: BackendOptions): Backend | Promise<Backend>;
  webgpu(options: BackendOptions): Promise<Backend>;
  /** True when WebGPU has an adapter that is a real GPU, not a software one. */
  hasGpu(): Promise<boolean>;
}

export interface DeviceOptions {
  /** Worker threads of the cpu backend, the main thread included. When absent: one a core; in a browser as many as run at a time, which is tried out. */
  readonly threads?: number;
  /** Bytes that the device may hold at a time, or a function that says so once it is known which is taken; the backend's own estimate when absent. */
  readonly budgetBytes?: number | ((name: "cpu" | "webgpu") => number);
  /** Text that the WebGPU adapter's name must contain, case-insensitive (for machines with several). */
  readonly adapter?: string;
  /** Kernel variants that were measured before (`tune`), in place of those remembered for the WebGPU adapter; null for none. What is measured then is not remembered. */
  readonly tuning?: Tuning | null;
  /** Called with the time of each kernel, once it is known. Kernels then run one by one, which costs some speed. */
  readonly onKernel?: (time: KernelTime) => void;
}

/** What a backend is made with. */
export type BackendOptions = Omit<DeviceOptions, "budgetBytes"> & { readonly budgetBytes?: number };

/** What a browser offers; the Node entry puts its own in place. */
let environment: Environment = {
  cpu: async ({ threads, budgetBytes, onKernel }) =>
    createCpuBackend({
      environment: await probedEnvironment(threads),
      ...(onKernel && { onKernel }),
      ...(threads === undefined ? {} : { threadCount: threads }),
      ...(budgetBytes === undefined ? {} : { budgetBytes }),
    }),
  webgpu: ({ budgetBytes, adapter, onKernel, tuning }) =>
    createWebgpuBackend({
      ...(typeof indexedDB === "undefined" ? {} : { tunings: indexedTunings(indexedDB) }),
      ...(tuning === undefined ? {} : { tuning }),
      ...(onKernel && { onKernel }),
      ...(budgetBytes === undefined ? {} : { budgetBytes }),
      ...(adapter === undefined ? {} : { adapter }),
    }),
  hasGpu: async () => typeof navigator !== "undefined" && navigator.gpu !== undefined && hasRealGpu(navigator.gpu),
};

/** Tells `device()` how to make backends here. Called once by the entry file. */
export function setEnvironment(value: Environment): void {
  environment = value;
}

/**
 * Opens a device. "auto" takes WebGPU where a real GPU is found, otherwise "cpu": a software adapter is slower than our own cpu
 * backend and is used only when asked for as "webgpu". "reference" is a float64 interpreter for tests.
 * Rejects with DeviceError, which says what to install, when the device cannot be had.
 */
export async function device(name: "auto" | "cpu" | "webgpu" | "reference" = "auto", options: DeviceOptions = {}): Promise<Device> {
  if (name === "reference") return referenceDevice();
  if (name !== "auto" && name !== "cpu" && name !== "webgpu") {
    throw new DeviceError(`There is no device called "${String(name)}". Use "auto", "cpu" or "webgpu".`, String(name));
  }
  if (options?.threads !== undefined) checkThreadCount(options.threads, "`threads`");
  const chosen = name === "auto" ? ((await environment.hasGpu()) ? "webgpu" : "cpu") : name;
  // Nothing of what the types say is sure from JavaScript.
  const { budgetBytes: asked, ...rest }: DeviceOptions = options ?? {};
  const budgetBytes = typeof asked === "function" ? asked(chosen) : asked;
  const backend = await environment[chosen]({ ...rest, ...(budgetBytes !== undefined && { budgetBytes }) });
  return new Device(chosen, backend, planExecutor());
}
