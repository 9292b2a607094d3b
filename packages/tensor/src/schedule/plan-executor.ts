import type { Backend, Executable } from "../graph/backend.js";
import type { Device } from "../graph/device.js";
import type { Executor, Program, Target } from "../graph/executor.js";
import { pruned } from "../graph/numbered.js";
import type { Storage } from "../graph/storage.js";
import { Forms } from "../graph/words.js";
import type { Kernel, Plan } from "../kernels/kernel.js";
import { slotAlignment } from "../kernels/kernel.js";
import type { Bound } from "../kernels/template.js";
import { buildKernels, type DraftTarget } from "./build.js";
import { canonicalize } from "./canonical.js";
import { debugLevel, debugPrint } from "./debug.js";
import { describePlan, nameOf } from "./describe.js";
import { type Draft, finishSlots } from "./draft.js";
import { fused, KnownJoins } from "./fuse.js";
import { grouped } from "./group.js";
import { updateInPlace } from "./in-place.js";
import { layOut } from "./layout.js";
import { ordered } from "./order.js";
import { overwritten } from "./overwrite.js";
import { KnownParts } from "./part.js";
import { rematerialized } from "./rematerialize.js";
import { areAlike, type LiveGraph, type Structure, structureOf } from "./structure.js";
import { withSums } from "./sums.js";

/** Plans kept ready beside those that compiled functions hold. */
const cachedPlanCount = 64;

/** Plans made with less and less memory for their values, until one fits with its workspace. */
const maxTries = 8;
/** What a plan leaves of its room is for batches, results and arguments of later plans. */
export const roomShare: number = 31 / 32;

/** Forms of nodes that are remembered; beyond it all that is known of earlier plans is forgotten, which costs time and nothing else. */
const maxForms = 2 ** 17;

/** What was found about nodes and kernels of earlier plans. */
interface Known {
  readonly forms: Forms;
  readonly parts: KnownParts;
  readonly joins: KnownJoins;
}

/** A plan made ready, with the number of programs that hold it. */
interface CachedPlan {
  readonly structure: Structure;
  readonly executable: Executable;
  /** The binding of each target. */
  readonly bindings: readonly number[];
  holders: number;
}

/**
 * Schedules a graph: kernels, their order, and the memory between them. Where the budget of the device does not hold all values at
 * once, the cheapest are computed twice.
 */
export function plan(device: Device, targets: readonly Target[], live: LiveGraph, known: Known): { plan: Plan; bindings: number[] } {
  const { inputs } = live;
  const canonical = canonicalize(live, device, known.forms);
  const { leastSummedRows } = device.backend;
  const graph = leastSummedRows === undefined ? pruned(canonical) : withSums(canonical, leastSummedRows, known.forms);
  let bindingCount = inputs.length;
  const bindingOf = new Map(inputs.map((storage, binding) => [storage, binding]));
  const drafts: DraftTarget[] = targets.map(({ storage }) => {
    return { dtype: storage.dtype, binding: bindingOf.get(storage) ?? bindingCount++ };
  });
  const { maxBindings } = device.limits;
  const built = buildKernels(graph, drafts, inputs, { maxBindings, strided: device.backend.stridedComposites, known: known.parts });
  const single = ordered(updateInPlace(overwritten(fused(built, maxBindings, known.joins))));
  const storages = new Set([...inputs, ...targets.map(({ storage }) => storage)]);
  let made = finished(single, bindingCount, maxBindings);
  const workspaceBytesOf = (plan: Plan): number => device.backend.workspaceBytes?.(plan) ?? 0;
  const excessOver = (room: number): number => (made.arenaBytes * 2 < room ? 0 : made.arenaBytes + workspaceBytesOf(made) - room);
  device.memory.wants(() => excessOver(roomFor(device, storages)) / roomShare);
  const room = roomFor(device, storages);
  for (let limit = made.arenaBytes, tries = 0; tries < maxTries; tries++) {
    const excess = excessOver(room);
    if (excess <= 0) break;
    // Gaps in the layout come on top of what is alive, so that a little less may help where just enough does not.
    limit = Math.min(room - workspaceBytesOf(made), limit - Math.max(excess / 2, limit / 64));
    const { draft, fits } = rematerialized(single, limit);
    made = finished(draft, bindingCount, maxBindings);
    if (!fits) break;
  }
  return { plan: made, bindings: drafts.map((target) => target.binding) };
}

/** Kernels that can no longer change, grouped where groups may be, with a place for every slot. */
function finished(single: Draft, bindingCount: number, maxBindings: number | undefined): Plan {
  // A group would bind all that its members do.
  const groups = maxBindings === undefined ? grouped(single) : single.kernels.map((kernel) => [kernel]);
  const { offsets, arenaBytes } = layOut(groups, single.slots);
  let kernels: readonly Kernel[] | null = null;
  let names: readonly string[] | null = null;
  return {
    slots: finishSlots(single.slots, offsets),
    bound: groups,
    // Who knows kernels by their templates asks for neither.
    get kernels() {
      kernels ??= groups.map(kernelOf);
      return kernels;
    },
    get names() {
      names ??= groups.map(nameOf);
      return names;
    },
    bindingCount,
    arenaBytes,
  };
}

function kernelOf([first, ...others]: readonly Bound[]): Kernel {
  if (!first) throw new Error("plan: a group without kernels.");
  return others.length === 0 ? first.kernel : { kind: "group", members: [first, ...others].map(({ kernel }) => kernel) };
}

/**
 * Bytes that a plan's own values may take: what the budget leaves beside all that is there and the storages that have no memory yet, less
 * a little for batches and results that come later.
 */
function roomFor({ limits, counters, backend }: Device, storages: ReadonlySet<Storage>): number {
  let missing = 0;
  for (const storage of storages) if (!storage.hasBuffer) missing += Math.ceil(Math.max(storage.bytes, 4) / slotAlignment) * slotAlignment;
  return (limits.budgetBytes - counters.bytesInUse + (backend.reusableBytes ?? 0) - missing) * roomShare;
}

/** The executor of devices with kernels: plans are cached by the structure of the graph and replayed with other storages. */
export function planExecutor(): Executor {
  const cache = new PlanCache();
  let known: Known = { forms: new Forms(), parts: new KnownParts(), joins: new KnownJoins() };
  return {
    prepare(device: Device, targets: readonly Target[]): Program {
      if (known.forms.count > maxForms) known = { ...known, forms: new Forms(), parts: new KnownParts() };
      const structure = structureOf(targets, known.forms);
      let cached = cache.find(structure);
      if (!cached) {
        const made = plan(device, targets, structure, known);
        if (debugLevel() >= 2) debugPrint(describePlan(made.plan));
        const executable = device.memory.within(() => device.backend.prepare(made.plan));
        const { words, forms, hash } = structure;
        cached = { structure: { words, forms, hash }, executable, bindings: made.bindings, holders: 0 };
      }
      cache.use(cached);
      return program(device.backend, cached, structure.inputs);
    },
  };
}

/** Plans by structure, those used last at the end. */
class PlanCache {
  readonly #plans = new Set<CachedPlan>();
  readonly #byHash = new Map<number, CachedPlan[]>();

  find(structure: Structure): CachedPlan | undefined {
    return this.#byHash.get(structure.hash)?.find((cached) => areAlike(cached.structure, structure));
  }

  /** Keeps a plan as the one used last, and gives up those that were used longest ago; not those that are held. */
  use(used: CachedPlan): void {
    const { hash } = used.structure;
    if (!this.#plans.delete(used)) this.#byHash.set(hash, [...(this.#byHash.get(hash) ?? []), used]);
    this.#plans.add(used);
    for (const cached of this.#plans) {
      if (this.#plans.size <= cachedPlanCount) return;
      if (cached.holders > 0 || cached === used) continue;
      cached.executable.dispose();
      this.#plans.delete(cached);
      const { hash } = cached.structure;
      const others = (this.#byHash.get(hash) ?? []).filter((other) => other !== cached);
      if (others.length > 0) this.#byHash.set(hash, others);
      else this.#byHash.delete(hash);
    }
  }
}

function program(backend: Backend, cached: CachedPlan, inputs: readonly Storage[]): Program {
  return {
    inputs,
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
