import type { Backend, Executable } from "../backends/backend.js";
import type { Device } from "../backends/device.js";
import type { Plan } from "../kernels/kernel.js";
import type { Storage } from "../tensor/storage.js";
import { buildKernels, type DraftTarget, finishSlots } from "./build.js";
import { canonicalize, structureOf } from "./canonical.js";
import { debugLevel, debugPrint } from "./debug.js";
import { describePlan, nameOf } from "./describe.js";
import type { Executor, Program, Target } from "./executor.js";
import { fused } from "./fuse.js";
import { grouped } from "./group.js";
import { layOut, updateInPlace } from "./liveness.js";
import { ordered } from "./order.js";
import { paired } from "./pair.js";

/** Plans kept ready beside those that compiled functions hold. */
const cachedPlanCount = 64;

/** A plan made ready, with the number of programs that hold it. */
interface CachedPlan {
  readonly executable: Executable;
  /** The binding of each target. */
  readonly bindings: readonly number[];
  holders: number;
}

/** Schedules a graph: kernels, their order, and the memory between them. */
export function plan(device: Device, targets: readonly Target[], inputs: readonly Storage[]): { plan: Plan; bindings: number[] } {
  const given = targets.map((target) => target.value);
  const roots = canonicalize(paired(given, device.backend), device);
  let bindingCount = inputs.length;
  const drafts: DraftTarget[] = targets.map(({ storage }, i) => {
    const input = inputs.indexOf(storage);
    return { value: roots[i] as Target["value"], dtype: storage.dtype, binding: input >= 0 ? input : bindingCount++ };
  });
  const { maxBindings } = device.limits;
  const single = updateInPlace(fused(buildKernels(drafts, inputs, maxBindings, device.backend.stridedComposites), maxBindings));
  // A group would bind all that its members do.
  const draft = maxBindings === undefined ? grouped(single) : ordered(single);
  const { offsets, arenaBytes } = layOut(draft.kernels, draft.slots);
  const slots = finishSlots(draft.slots, offsets);
  return {
    plan: { slots, kernels: draft.kernels, names: draft.kernels.map((kernel) => nameOf(kernel)), bindingCount, arenaBytes },
    bindings: drafts.map((target) => target.binding),
  };
}

/** The executor of devices with kernels: plans are cached by the structure of the graph and replayed with other storages. */
export function planExecutor(): Executor {
  const cache = new Map<string, CachedPlan>();
  return {
    prepare(device: Device, targets: readonly Target[]): Program {
      const { key, inputs } = structureOf(targets);
      let cached = cache.get(key);
      if (!cached) {
        const made = plan(device, targets, inputs);
        if (debugLevel() >= 2) debugPrint(describePlan(made.plan));
        cached = { executable: device.backend.prepare(made.plan), bindings: made.bindings, holders: 0 };
      }
      // Most recently used last.
      cache.delete(key);
      cache.set(key, cached);
      evict(cache, cached);
      return program(device.backend, cached, inputs, targets);
    },
  };
}

/** Gives up the plans that were used longest ago; not those that are held, nor the one about to run. */
function evict(cache: Map<string, CachedPlan>, kept: CachedPlan): void {
  for (const [key, cached] of cache) {
    if (cache.size <= cachedPlanCount) return;
    if (cached.holders > 0 || cached === kept) continue;
    cached.executable.dispose();
    cache.delete(key);
  }
}

function program(backend: Backend, cached: CachedPlan, inputs: readonly Storage[], targets: readonly Target[]): Program {
  return {
    inputs,
    targets,
    run(given, storages) {
      const buffers = given.map((storage) => storage.buffer);
      for (const [i, storage] of storages.entries()) buffers[cached.bindings[i] ?? 0] = storage.buffer;
      backend.run(cached.executable, buffers);
    },
    hold() {
      cached.holders++;
    },
    dispose() {
      cached.holders--;
    },
  };
}
