import { DeviceError, showValue } from "../tensor/errors.js";
import type { Backend, BackendCounters, BackendLimits } from "./backend.js";
import type { Executor } from "./executor.js";
import { Histories } from "./history.js";
import { DeviceMemory } from "./memory.js";
import type { Node } from "./node.js";
import type { Storage } from "./storage.js";
import type { Tensor } from "./tensor.js";
import { UnreadHandles } from "./unread.js";

export type DeviceName = "cpu" | "webgpu" | "reference";

/** An `assign` that has not run yet: the storage's next contents, and the tensor that was assigned to. */
export interface PendingAssignment {
  readonly value: Node;
  readonly target: Tensor;
}

/**
 * A place where tensors live and kernels run; made by `device()`. Tensors of different devices do not mix.
 */
export class Device {
  /** Values that the next `realize` writes into existing storages, together with whatever it was asked for. */
  pendingAssignments: Map<Storage, PendingAssignment> = new Map();
  /** Who holds this device's memory, and how room is made when it runs short. */
  readonly memory: DeviceMemory;
  /** Handles whose values nobody has read yet. */
  readonly unread: UnreadHandles = new UnreadHandles();
  /** The expressions of values that were read. */
  readonly histories: Histories = new Histories();
  #isDisposed = false;

  constructor(
    readonly name: DeviceName,
    readonly backend: Backend,
    readonly executor: Executor,
  ) {
    this.memory = new DeviceMemory(backend, () => {
      this.histories.letGo();
      this.unread.weaken();
    });
  }

  /** A line for humans: adapter, driver, threads. */
  get description(): string {
    return this.backend.description;
  }

  get limits(): BackendLimits {
    return this.backend.limits;
  }

  get counters(): Readonly<BackendCounters> {
    return this.backend.counters;
  }

  get isDisposed(): boolean {
    return this.#isDisposed;
  }

  /** Resolves when more can be enqueued without making the caller wait: between large pieces of work, so that the event loop has its turns. */
  async ready(): Promise<void> {
    await this.backend.ready?.();
  }

  /** Waits for everything enqueued. Rejects with DeviceError when the device was lost. */
  finish(): Promise<void> {
    return this.backend.finish();
  }

  /** Frees all memory and threads. Tensors of this device can no longer be read. */
  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.memory.close();
    this.backend.dispose();
  }
}

/**
 * Throws DeviceError for what is not a device: from JavaScript, it may be missing, a name, or a promise that nobody awaited. `what` names the
 * call. Told by its parts, because several copies of the package may be installed.
 */
export function checkDevice(device: unknown, what: string): asserts device is Device {
  if (typeof device === "object" && device !== null && "backend" in device && "executor" in device) return;
  const fact = device === undefined ? "`device` is missing" : `\`device\` is ${showValue(device)}, not a device`;
  throw new DeviceError(`${what}: ${fact}. Pass what device() gives: { device: await device() }.`, "none");
}
