import type {
  Backend,
  BackendBuffer,
  BackendCounters,
  BackendLimits,
  Executable,
  KernelTime,
  TunedClass,
  Tuning,
} from "../../graph/backend.js";
import type { CompositeKernel, Plan } from "../../kernels/kernel.js";
import { hasProgram, programNames, tunedChoice, type VariantChoice } from "../../kernels/wgsl/choice.js";
import type { MatmulVariant } from "../../kernels/wgsl/matmul.js";
import type { Target } from "../../kernels/wgsl/print.js";
import { DeviceError } from "../../tensor/errors.js";
import {
  type AdapterInfo,
  adapterKey,
  describeAdapter,
  isSoftwareAdapter,
  requestAdapter,
  requestDevice,
  subgroupSize,
} from "./adapter.js";
import { SharedArena } from "./arena.js";
import { BufferPool, type DeviceBuffer } from "./buffers.js";
import { WebgpuExecutable } from "./executable.js";
import { DeviceFaults } from "./faults.js";
import { PipelineCache } from "./pipelines.js";
import { Profiler } from "./profile.js";
import { Programs } from "./programs.js";
import { Transfers } from "./transfer.js";
import { knownVariants, tuneMatmuls } from "./tuner.js";
import { parseTuning, type TuningStore } from "./tuning.js";

export interface WebgpuOptions {
  /** The WebGPU entry point: `navigator.gpu` when absent; in Node what `loadDawn()` gives. */
  readonly gpu?: GPU;
  /** Bytes that the backend may hold at a time. */
  readonly budgetBytes?: number;
  /** Text that the adapter's name must contain, case-insensitive. */
  readonly adapter?: string;
  /** Gets the time of each kernel, in order, whenever results are read. Runs each kernel in a pass of its own; needs `timestamp-query`. */
  readonly onKernel?: (time: KernelTime) => void;
  /** Gets each program of a plan when the plan is made ready. */
  readonly onProgram?: (program: { readonly name: string; readonly code: string }) => void;
  /** Variants measured before; null for none. Who gives them keeps them: `tunings` is then neither read nor written. */
  readonly tuning?: Tuning | null;
  /** Where measured variants are remembered. */
  readonly tunings?: TuningStore;
  /** Replaces choices of variants, so that tests can force one. */
  readonly choice?: Partial<VariantChoice>;
}

/** A round of a variant that is timed takes about so long, or so many runs. */
const timedMs = 10;
const maxTimedRuns = 200;

/** WebGPU does not say how much memory there is. */
const defaultBudgetBytes = 16 * 2 ** 30;

/** Opens a WebGPU device. Rejects with DeviceError, which says what to install, when there is none. */
export async function createWebgpuBackend(options: WebgpuOptions = {}): Promise<WebgpuBackend> {
  const gpu = options.gpu ?? (typeof navigator === "undefined" ? undefined : navigator.gpu);
  if (!gpu)
    throw new DeviceError(
      "There is no WebGPU here: navigator.gpu is missing. Use a browser that has it over https, or device cpu.",
      "webgpu",
    );
  const adapter = await requestAdapter(gpu, options.adapter);
  const { tunings, ...rest } = options;
  const kept = rest.tuning === undefined && tunings ? { tunings, tuning: await remembered(adapter.info, tunings) } : {};
  return new WebgpuBackend(gpu, adapter.info, await requestDevice(adapter), { ...rest, ...kept });
}

async function remembered(info: AdapterInfo, tunings: TuningStore): Promise<Tuning | null> {
  const found = await tunings.load(adapterKey(info));
  return found ? parseTuning(found.value, found.source) : null;
}

/** True when WebGPU offers an adapter that is a real GPU. */
export async function hasRealGpu(gpu: GPU): Promise<boolean> {
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  return adapter !== null && !isSoftwareAdapter(adapter.info);
}

/** Runs plans on a GPU through WebGPU. */
export class WebgpuBackend implements Backend {
  readonly name = "webgpu";
  readonly description: string;
  readonly limits: BackendLimits;
  readonly counters: BackendCounters = {
    buffersCreated: 0,
    pipelinesCreated: 0,
    plansPrepared: 0,
    kernelsRun: 0,
    bytesInUse: 0,
    peakBytes: 0,
  };
  readonly target: Target;
  readonly #measured: Map<string, MatmulVariant>;
  readonly #choice: VariantChoice;
  readonly #programs: Programs;
  readonly #faults: DeviceFaults;
  readonly #pool: BufferPool;
  readonly #arena: SharedArena;
  readonly #pipelines: PipelineCache;
  readonly #transfers: Transfers;
  #profiler: Profiler | null = null;

  constructor(
    /** Held because devices die when their instance is collected. */
    readonly gpu: GPU,
    readonly adapterInfo: AdapterInfo,
    readonly device: GPUDevice,
    readonly options: WebgpuOptions = {},
  ) {
    const { limits } = device;
    const { budgetBytes = defaultBudgetBytes } = options;
    this.description = `WebGPU on ${describeAdapter(adapterInfo)}`;
    this.limits = { maxBufferBytes: limits.maxBufferSize, budgetBytes, maxBindings: limits.maxStorageBuffersPerShaderStage };
    this.target = {
      maxBindingBytes: limits.maxStorageBufferBindingSize,
      maxBindings: limits.maxStorageBuffersPerShaderStage,
      maxInvocations: 256,
      maxWorkgroupBytes: limits.maxComputeWorkgroupStorageSize,
      maxWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
      isSoftware: isSoftwareAdapter(adapterInfo),
      subgroupSize: device.features.has("subgroups") ? subgroupSize(adapterInfo) : 0,
    };
    this.#measured = options.tuning ? knownVariants(options.tuning, this.target) : new Map();
    this.#programs = new Programs(this.target);
    this.#choice = { ...tunedChoice(this.#measured), ...options.choice };
    this.#faults = new DeviceFaults(device);
    this.#pool = new BufferPool(device, this.counters, budgetBytes, limits.maxBufferSize);
    this.#arena = new SharedArena(this.#pool);
    this.#pipelines = new PipelineCache(device, this.counters);
    this.#transfers = new Transfers(device, this.counters);
    if (options.onKernel) this.startProfile();
  }

  get reusableBytes(): number {
    return this.#arena.bytes;
  }

  supports(kernel: CompositeKernel): boolean {
    return hasProgram(kernel, this.target, this.#choice);
  }

  get stridedComposites(): ReadonlySet<string> {
    return programNames;
  }

  allocate(bytes: number): BackendBuffer {
    this.#faults.check();
    return this.#pool.allocate(bytes);
  }

  free(buffer: BackendBuffer): void {
    this.#pool.free(buffer as DeviceBuffer);
  }

  write(buffer: BackendBuffer, data: Uint8Array, byteOffset = 0): void {
    this.#faults.check();
    this.#transfers.write(this.#own(buffer), data, byteOffset);
  }

  async read(buffer: BackendBuffer, byteLength: number, byteOffset = 0): Promise<Uint8Array> {
    this.#faults.check();
    if (byteLength === 0) return new Uint8Array(0);
    const bytes = await this.#waiting(this.#transfers.read(this.#own(buffer).gpu, byteLength, byteOffset));
    this.#faults.check();
    await this.#reportTimes();
    return bytes;
  }

  prepare(plan: Plan): Executable {
    this.#faults.check();
    this.counters.plansPrepared++;
    const executable = this.#compiled(plan, this.#choice);
    if (this.options.onProgram) for (const program of this.programs(executable)) this.options.onProgram(program);
    return executable;
  }

  run(executable: Executable, bindings: readonly BackendBuffer[]): void {
    this.#faults.check();
    if (!(executable instanceof WebgpuExecutable)) throw new Error("This plan was prepared by another backend.");
    for (const buffer of bindings) this.#own(buffer);
    const encoder = this.device.createCommandEncoder({ label: "plan" });
    executable.encode(encoder, bindings as readonly DeviceBuffer[], this.#profiler);
    this.device.queue.submit([encoder.finish()]);
    this.counters.kernelsRun += executable.steps.length;
  }

  async tune(plans: readonly Plan[], onClass: (found: TunedClass) => void): Promise<Tuning> {
    const time = (plan: Plan, variant: MatmulVariant, enoughMs: number): Promise<number> => this.#timed(plan, variant, enoughMs);
    const measured = (): Tuning => ({ adapter: adapterKey(this.adapterInfo), matmul: Object.fromEntries(this.#measured) });
    await tuneMatmuls(plans, this.target, this.#measured, time, async (found) => {
      this.#programs.clear();
      // At once, so that what was measured stays when somebody ends the process.
      await this.options.tunings?.save(measured());
      onClass(found);
    });
    return measured();
  }

  /** Milliseconds of one product with a variant, the median of three rounds after one that compiles and one that says how many fill a round. */
  async #timed(plan: Plan, variant: MatmulVariant, enoughMs: number): Promise<number> {
    const executable = this.#compiled(plan, { ...this.#choice, matmul: () => variant });
    const buffers = plan.slots.map(({ bytes }) => this.#pool.allocate(bytes));
    const round = async (count: number): Promise<number> => {
      const start = performance.now();
      const encoder = this.device.createCommandEncoder({ label: "tune" });
      for (let i = 0; i < count; i++) executable.encode(encoder, buffers, null);
      this.device.queue.submit([encoder.finish()]);
      await this.#waiting(this.device.queue.onSubmittedWorkDone());
      this.#faults.check();
      return (performance.now() - start) / count;
    };
    try {
      await round(1);
      const once = await round(1);
      if (once > enoughMs) return once;
      const count = Math.min(maxTimedRuns, Math.ceil(timedMs / once));
      const times = [await round(count), await round(count), await round(count)];
      return times.sort((x, y) => x - y)[1] as number;
    } finally {
      for (const buffer of buffers) this.#pool.free(buffer);
      executable.dispose();
    }
  }

  #compiled(plan: Plan, choice: VariantChoice): WebgpuExecutable {
    return new WebgpuExecutable(plan, this.device, this.#pipelines, this.#arena, this.#programs, choice, this.limits.maxBufferBytes);
  }

  async finish(): Promise<void> {
    this.#faults.check();
    await this.#waiting(this.device.queue.onSubmittedWorkDone());
    this.#faults.check();
    await this.#reportTimes();
  }

  dispose(): void {
    this.#faults.dispose();
    this.device.destroy();
    this.counters.bytesInUse = 0;
  }

  /** The WGSL of each of a plan's programs, in order of running. */
  programs(executable: Executable): { name: string; code: string }[] {
    return executable instanceof WebgpuExecutable
      ? executable.steps.map(({ program }) => ({ name: program.name, code: program.code }))
      : [];
  }

  /** From now on `takeKernelTimes` has the time of each kernel that runs, if the adapter can measure it. Costs a pass a kernel. */
  startProfile(): void {
    if (this.device.features.has("timestamp-query")) this.#profiler ??= new Profiler(this.device);
  }

  /** Times of the kernels that ran since the last call, in order; empty when the adapter has no timestamps. */
  async takeKernelTimes(): Promise<KernelTime[]> {
    return (await this.#profiler?.take()) ?? [];
  }

  async #reportTimes(): Promise<void> {
    const { onKernel } = this.options;
    if (onKernel) for (const time of await this.takeKernelTimes()) onKernel(time);
  }

  #own(buffer: BackendBuffer): DeviceBuffer {
    const own = buffer as DeviceBuffer;
    if (own.isFree) throw new DeviceError("A buffer was used after it was freed.", "webgpu");
    return own;
  }

  /** A promise of Dawn's, whose rejection when the device is lost becomes a DeviceError. */
  async #waiting<T>(promise: Promise<T>): Promise<T> {
    try {
      return await promise;
    } catch (error) {
      this.#faults.check();
      throw new DeviceError(`WebGPU: ${error instanceof Error ? error.message : String(error)}`, "webgpu");
    }
  }
}
