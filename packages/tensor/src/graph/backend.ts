import type { CompositeKernel, Plan } from "../kernels/kernel.js";
import type { KernelStatistics } from "../kernels/statistics.js";
import type { MatmulVariant } from "../kernels/wgsl/matmul.js";

/** Device memory of one tensor. Opaque outside its backend. Its capacity is at least the bytes asked for. */
export interface BackendBuffer {
  readonly bytes: number;
}

/** A plan made ready by a backend: kernels compiled, arena reserved. */
export interface Executable {
  readonly plan: Plan;
  /** Gives back the arena and whatever the backend compiled for this plan alone. */
  dispose(): void;
}

export interface BackendLimits {
  /** Largest single buffer in bytes. */
  readonly maxBufferBytes: number;
  /** All bytes that the backend may hold at a time. */
  readonly budgetBytes: number;
  /** Memories that one kernel may read and write, where there is such a limit. */
  readonly maxBindings?: number;
}

/** Counters that tests and `doctor` read. All are totals since the backend was made, but `bytesInUse` and `peakBytes`. */
export interface BackendCounters {
  buffersCreated: number;
  pipelinesCreated: number;
  plansPrepared: number;
  kernelsRun: number;
  bytesInUse: number;
  peakBytes: number;
}

/** When one kernel of one run ran, as a backend's `onKernel` gets it. */
export interface KernelTime {
  readonly name: string;
  /** Milliseconds since some moment that all times of the device share. */
  readonly startMs: number;
  readonly ms: number;
  /** What the kernel moves and computes; absent where it is a part of a plan's kernel. */
  readonly work?: KernelStatistics;
}

/** What was measured on an adapter: the fastest variant of each class of products. Plain data, to be kept as JSON. */
export interface Tuning {
  /** The adapter that was measured. */
  readonly adapter: string;
  readonly matmul: Readonly<Record<string, MatmulVariant>>;
}

/** A class of products, and what was found out about it. */
export interface TunedClass {
  readonly name: string;
  /** Milliseconds of one product with the variant that would be taken unmeasured, and with the fastest. */
  readonly modelledMs: number;
  readonly fastestMs: number;
  readonly variant: MatmulVariant;
  /** How many classes are done, this one included, of how many. */
  readonly done: number;
  readonly count: number;
}

/**
 * What a device must do. Everything is synchronous to call and happens in call order; `read` is the one place that waits.
 * `allocate` may hand out a pooled buffer with old contents.
 */
export interface Backend {
  readonly name: "cpu" | "webgpu" | "reference";
  /** A line for humans: adapter name, driver, threads. */
  readonly description: string;
  readonly limits: BackendLimits;
  readonly counters: BackendCounters;
  /** True when the backend has a kernel of its own for this composite; otherwise the scheduler decomposes it into primitives. */
  supports(kernel: CompositeKernel): boolean;
  /** Names of composites whose operands may be strided views with a contiguous last axis, so that nothing is copied for their sake. */
  readonly stridedComposites?: ReadonlySet<string>;
  /** From so many rows on, products of matrices that are added up are one kernel; absent where the backend has no such kernel. */
  readonly leastSummedRows?: number;
  /** Throws DeviceError when the budget does not hold it. */
  allocate(bytes: number): BackendBuffer;
  free(buffer: BackendBuffer): void;
  write(buffer: BackendBuffer, data: Uint8Array, byteOffset?: number): void;
  /**
   * Part of a buffer as memory that others may fill, files for instance, in place of a `write` of the same bytes, before anything that uses the
   * buffer is enqueued. Null where there is no such memory now, or it might move.
   */
  place?(buffer: BackendBuffer, byteLength: number, byteOffset: number): Uint8Array | null;
  read(buffer: BackendBuffer, byteLength: number, byteOffset?: number): Promise<Uint8Array>;
  /** The part of `bytesInUse` that is shared by all plans, so that the next one may use it too; 0 when absent. */
  readonly reusableBytes?: number;
  /** Bytes beside the arena that running a plan takes, where there are any. */
  workspaceBytes?(plan: Plan): number;
  prepare(plan: Plan): Executable;
  /** Enqueues all kernels. `bindings[i]` is the buffer of every slot with `binding: i`. */
  run(executable: Executable, bindings: readonly BackendBuffer[]): void;
  /** Measures kernel variants for the products of some plans, uses the fastest from then on, and remembers them. See `tune`. */
  tune?(plans: readonly Plan[], onClass: (found: TunedClass) => void): Promise<Tuning>;
  /** Resolves when more can be enqueued without making the caller wait; absent where that is always so. */
  ready?(): Promise<void>;
  /** Waits until everything enqueued has finished; rejects with DeviceError when the device was lost. */
  finish(): Promise<void>;
  dispose(): void;
}
