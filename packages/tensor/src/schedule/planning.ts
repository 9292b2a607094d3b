import type { Backend, BackendBuffer, BackendCounters, Executable } from "../graph/backend.js";
import { Device, type DeviceName } from "../graph/device.js";
import type { Executor, Program } from "../graph/executor.js";
import type { Plan } from "../kernels/kernel.js";
import { planExecutor } from "./plan-executor.js";

/** A device that plans and computes nothing, with the plans that were made on it, oldest first. */
export interface PlanningDevice {
  readonly device: Device;
  readonly plans: readonly Plan[];
  /** From here on `counters.peakBytes` is that of what comes, beside what is held: arenas of the plans before do not count any more. */
  startPeak(): void;
  /** Runs `make`; what is computed meanwhile is not planned and counts with its results alone. For initialization, which is no part of a step. */
  initializing<R>(make: () => R): R;
}

/** What plans are made for: a `Device` that is open, or a description of one that is not there. */
export interface PlannedFor {
  readonly name: DeviceName;
  readonly description: string;
  readonly backend: Pick<Backend, "name" | "limits" | "supports" | "stridedComposites" | "leastSummedRows" | "workspaceBytes">;
}

/** A program that gives results their memory and computes nothing. */
const unplanned: Program = {
  inputs: [],
  run(_inputs, storages) {
    for (const storage of storages) storage.buffer;
  },
  hold() {},
  dispose() {},
};

/**
 * A device on which programs are scheduled as for `like` and nothing is allocated or run: what a model would take is known without
 * building it. Its counters are what the other device's would be; reading gives zeros. Plans try to stay within `budgetBytes`, of which
 * nothing is refused: whether it fits is what is asked.
 */
export function planningDevice(like: PlannedFor, budgetBytes: number = Number.MAX_SAFE_INTEGER): PlanningDevice {
  const plans: Plan[] = [];
  const counters: BackendCounters = {
    buffersCreated: 0,
    pipelinesCreated: 0,
    plansPrepared: 0,
    kernelsRun: 0,
    bytesInUse: 0,
    peakBytes: 0,
  };
  let bufferBytes = 0;
  let arenaBytes = 0;
  const count = (): void => {
    counters.bytesInUse = bufferBytes + arenaBytes;
    counters.peakBytes = Math.max(counters.peakBytes, counters.bytesInUse);
  };
  const backend: Backend = {
    name: like.backend.name,
    description: `plans for ${like.description}`,
    limits: { ...like.backend.limits, maxBufferBytes: Number.MAX_SAFE_INTEGER, budgetBytes },
    counters,
    get reusableBytes() {
      return arenaBytes;
    },
    supports: (kernel) => like.backend.supports(kernel),
    ...(like.backend.workspaceBytes && { workspaceBytes: (plan: Plan) => like.backend.workspaceBytes?.(plan) ?? 0 }),
    ...(like.backend.stridedComposites && { stridedComposites: like.backend.stridedComposites }),
    ...(like.backend.leastSummedRows !== undefined && { leastSummedRows: like.backend.leastSummedRows }),
    allocate(bytes): BackendBuffer {
      counters.buffersCreated++;
      bufferBytes += bytes;
      count();
      return { bytes };
    },
    free({ bytes }) {
      bufferBytes -= bytes;
      count();
    },
    write() {},
    read: async (_buffer, byteLength) => new Uint8Array(byteLength),
    prepare(plan): Executable {
      plans.push(plan);
      counters.plansPrepared++;
      // One arena serves all plans, because they run one after another.
      arenaBytes = Math.max(arenaBytes, plan.arenaBytes + (like.backend.workspaceBytes?.(plan) ?? 0));
      count();
      return { plan, dispose() {} };
    },
    run({ plan }) {
      counters.kernelsRun += (plan.bound ?? plan.kernels).length;
    },
    finish: async () => {},
    dispose() {},
  };
  const executor = planExecutor();
  let isInitializing = false;
  const prepare: Executor["prepare"] = (device, targets) => (isInitializing ? unplanned : executor.prepare(device, targets));
  return {
    device: new Device(like.name, backend, { prepare }),
    plans,
    initializing(make) {
      isInitializing = true;
      try {
        return make();
      } finally {
        isInitializing = false;
      }
    },
    startPeak() {
      arenaBytes = 0;
      counters.peakBytes = 0;
      count();
    },
  };
}
