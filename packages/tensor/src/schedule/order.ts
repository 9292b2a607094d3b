import type { Slot } from "../kernels/kernel.js";
import type { Draft, DraftSlot } from "./build.js";
import { dependencies, type Task } from "./dependencies.js";
import { alignedBytes } from "./liveness.js";

/** Memory of which it does not matter whether it is kept longer than needed. */
export const smallBytes = 16384;

/** A kernel that gives back this share of what it takes keeps as much alive: beside a matrix, a number a row does not count. */
const freedShare = 0.98;

/** Which of a plan's inner slots hold something, as kernels run one after another. */
export class LiveMemory {
  bytes = 0;
  readonly #waiting = new Map<Slot, number>();

  constructor(
    readonly slots: readonly DraftSlot[],
    tasks: Iterable<Task>,
  ) {
    for (const task of tasks) for (const slot of task.slots) this.#add(slot, 1);
  }

  #add(slot: Slot, count: number): number {
    const left = (this.#waiting.get(slot) ?? 0) + count;
    this.#waiting.set(slot, left);
    return left;
  }

  /** Bytes of a slot that lies inside the plan, else 0. */
  innerBytes(slot: Slot): number {
    const info = this.slots[slot];
    return info?.binding === null ? alignedBytes(info) : 0;
  }

  /** Bytes that a kernel's results take. */
  taken(task: Task): number {
    return task.writes.reduce((sum, slot) => sum + this.innerBytes(slot), 0);
  }

  /** Bytes that nothing needs once the kernel has run: operands that it is the last to read, results that nobody reads. */
  freed(task: Task): number {
    let bytes = 0;
    for (const slot of task.slots) if (this.#waiting.get(slot) === 1) bytes += this.innerBytes(slot);
    return bytes;
  }

  /** Runs kernels at the same time; returns the bytes that are alive meanwhile. */
  run(tasks: readonly Task[]): number {
    for (const task of tasks) this.bytes += this.taken(task);
    const meanwhile = this.bytes;
    for (const task of tasks) {
      for (const slot of task.slots) if (this.#add(slot, -1) === 0) this.bytes -= this.innerBytes(slot);
    }
    return meanwhile;
  }
}

/** The most bytes that are ever alive. */
export function peakOf(order: readonly Task[], slots: readonly DraftSlot[]): number {
  const memory = new LiveMemory(slots, order);
  return order.reduce((peak, task) => Math.max(peak, memory.run([task])), 0);
}

/**
 * The kernels in an order that keeps less alive: one that frees about what it takes runs as soon as it can, then
 * those that do so together, the others in the order given; `isLast` ones after all others.
 */
export function orderTasks(tasks: readonly Task[], slots: readonly DraftSlot[], isLast: (task: Task) => boolean): Task[] {
  const memory = new LiveMemory(slots, tasks);
  const order: Task[] = [];
  const missing = new Map(tasks.map((task) => [task, task.before.size]));
  let ready = tasks.filter((task) => task.before.size === 0);
  const readers = new Map<Slot, Set<Task>>();
  for (const task of tasks) for (const slot of task.reads) readers.set(slot, (readers.get(slot) ?? new Set()).add(task));
  /** Whether all that still need one of a kernel's operands can run now, and together take less than it. */
  const isAmongLast = (task: Task): boolean =>
    task.reads.some((slot) => {
      const left = [...(readers.get(slot) ?? [])];
      const taken = left.reduce((sum, reader) => sum + memory.taken(reader), 0);
      return left.length > 1 && memory.innerBytes(slot) >= taken * freedShare && left.every((reader) => ready.includes(reader));
    });
  while (ready.length > 0) {
    const first = ready.filter((task) => !isLast(task));
    const next =
      first.find((task) => memory.freed(task) >= memory.taken(task) * freedShare) ??
      first.find(isAmongLast) ??
      first[0] ??
      (ready[0] as Task);
    memory.run([next]);
    order.push(next);
    for (const slot of next.reads) readers.get(slot)?.delete(next);
    const released: Task[] = [];
    for (const task of next.after) {
      const left = (missing.get(task) ?? 0) - 1;
      missing.set(task, left);
      if (left === 0) released.push(task);
    }
    ready = [...ready.filter((task) => task !== next), ...released].sort((a, b) => a.index - b.index);
  }
  const given = [...tasks.filter((task) => !isLast(task)), ...tasks.filter(isLast)];
  return peakOf(given, slots) < peakOf(order, slots) ? given : order;
}

/**
 * Kernels that only write memory from outside, as an optimizer does, and whatever serves them alone: they may wait until all else is done
 * where that keeps hardly more alive than they write.
 */
export function lastTasks(tasks: readonly Task[], slots: readonly DraftSlot[]): Set<Task> {
  const last = new Set<Task>();
  const kept = new Set<Slot>();
  for (const task of [...tasks].reverse()) {
    if (task.kernel.kind !== "loop" && task.kernel.kind !== "copy") continue;
    if ([...task.after].some((user) => !last.has(user))) continue;
    let [outside, inside, read] = [0, 0, 0];
    for (const slot of task.writes) {
      const info = slots[slot];
      if (info?.binding === null) inside += alignedBytes(info);
      else if (info) outside += alignedBytes(info);
    }
    for (const slot of task.reads) {
      const info = slots[slot];
      if (info?.binding === null && !kept.has(slot)) read += alignedBytes(info);
    }
    if (inside > smallBytes || read > outside + smallBytes) continue;
    last.add(task);
    for (const slot of task.reads) kept.add(slot);
  }
  return last;
}

/** A plan's kernels in the order of `orderTasks`. */
export function ordered(draft: Draft): Draft {
  const tasks = dependencies(draft.kernels);
  const last = lastTasks(tasks, draft.slots);
  return { ...draft, kernels: orderTasks(tasks, draft.slots, (task) => last.has(task)).map((task) => task.kernel) };
}
