import type { Slot } from "../kernels/kernel.js";
import type { Draft, DraftSlot } from "./build.js";
import { dependencies, type Task } from "./dependencies.js";
import { Earliest } from "./earliest.js";
import { alignedBytes } from "./liveness.js";
import { work } from "./work.js";

/** Memory of which it does not matter whether it is kept longer than needed. */
export const smallBytes = 16384;

/** A kernel that gives back this share of what it takes keeps as much alive: beside a matrix, a number a row does not count. */
const freedShare = 0.98;

/** Which of a plan's inner slots hold something, as kernels run one after another. */
export class LiveMemory {
  bytes = 0;
  /** Kernels that have not run of those that touch a slot, and the sum of their places: the place of the last one. */
  readonly #waiting = new Map<Slot, { count: number; indices: number }>();
  readonly #freed = new Map<number, number>();

  constructor(
    readonly slots: readonly DraftSlot[],
    tasks: Iterable<Task>,
    /** Told of a kernel that is the last to touch another of its slots. */
    readonly onFreed: (index: number) => void = () => {},
  ) {
    for (const task of tasks) {
      for (const slot of task.slots) {
        const waiting = this.#waiting.get(slot);
        if (!waiting) this.#waiting.set(slot, { count: 1, indices: task.index });
        else {
          waiting.count++;
          waiting.indices += task.index;
        }
      }
    }
    for (const [slot, { count, indices }] of this.#waiting) if (count === 1) this.#free(slot, indices);
  }

  #free(slot: Slot, index: number): void {
    this.#freed.set(index, (this.#freed.get(index) ?? 0) + this.innerBytes(slot));
  }

  /** Bytes of a slot that lies inside the plan, else 0. */
  innerBytes(slot: Slot): number {
    const info = this.slots[slot];
    return info?.binding === null ? alignedBytes(info) : 0;
  }

  /** Bytes that a kernel's results take. */
  taken(task: Task): number {
    let bytes = 0;
    for (const slot of task.writes) bytes += this.innerBytes(slot);
    return bytes;
  }

  /** Bytes that nothing needs once the kernel has run: operands that it is the last to read, results that nobody reads. */
  freed(task: Task): number {
    return this.#freed.get(task.index) ?? 0;
  }

  /** Runs kernels at the same time; returns the bytes that are alive meanwhile. */
  run(tasks: readonly Task[]): number {
    for (const task of tasks) this.bytes += this.taken(task);
    const meanwhile = this.bytes;
    for (const task of tasks) {
      for (const slot of task.slots) {
        const waiting = this.#waiting.get(slot);
        if (!waiting) continue;
        waiting.count--;
        waiting.indices -= task.index;
        if (waiting.count === 0) this.bytes -= this.innerBytes(slot);
        if (waiting.count !== 1) continue;
        this.#free(slot, waiting.indices);
        this.onFreed(waiting.indices);
      }
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
  const order = new Orderer(tasks, slots, isLast).run();
  const given = [...tasks.filter((task) => !isLast(task)), ...tasks.filter(isLast)];
  return peakOf(given, slots) < peakOf(order, slots) ? given : order;
}

/** Those that still need a slot: how many, how many of them can run now, and what they take. */
interface Readers {
  readonly tasks: Task[];
  left: number;
  ready: number;
  taken: number;
}

/** Runs tasks in the order of `orderTasks`. What is true of one that can run stays true until it runs, so that queues hold what was found. */
class Orderer {
  readonly #memory: LiveMemory;
  readonly #missing: Map<Task, number>;
  readonly #byIndex = new Map<number, Task>();
  readonly #isReady = new Set<Task>();
  readonly #isDone = new Set<Task>();
  readonly #readers = new Map<Slot, Readers>();
  /** Kernels that can run, by kind; those that have run since are passed over. */
  readonly #freeing = new Earliest<Task>();
  readonly #together = new Earliest<Task>();
  readonly #others = new Earliest<Task>();
  readonly #last = new Earliest<Task>();

  constructor(
    readonly tasks: readonly Task[],
    slots: readonly DraftSlot[],
    readonly isLast: (task: Task) => boolean,
  ) {
    this.#missing = new Map(tasks.map((task) => [task, task.before.size]));
    for (const task of tasks) this.#byIndex.set(task.index, task);
    this.#memory = new LiveMemory(slots, tasks, (index) => this.#noteFreeing(this.#byIndex.get(index) as Task));
    for (const task of tasks) {
      for (const slot of new Set(task.reads)) {
        const taken = this.#memory.taken(task);
        const readers = this.#readers.get(slot);
        if (readers) {
          readers.tasks.push(task);
          readers.left++;
          readers.taken += taken;
        } else this.#readers.set(slot, { tasks: [task], left: 1, ready: 0, taken });
      }
    }
  }

  run(): Task[] {
    for (const task of this.tasks) if (task.before.size === 0) this.#release(task);
    const order: Task[] = [];
    for (let next = this.#next(); next; next = this.#next()) {
      work.kernels += 1 + next.after.size;
      this.#isDone.add(next);
      this.#memory.run([next]);
      order.push(next);
      for (const slot of new Set(next.reads)) {
        const readers = this.#readers.get(slot) as Readers;
        readers.left--;
        readers.ready--;
        readers.taken -= this.#memory.taken(next);
        this.#noteTogether(slot);
      }
      for (const task of next.after) {
        const left = (this.#missing.get(task) ?? 0) - 1;
        this.#missing.set(task, left);
        if (left === 0) this.#release(task);
      }
    }
    return order;
  }

  #release(task: Task): void {
    this.#isReady.add(task);
    (this.isLast(task) ? this.#last : this.#others).add(task);
    this.#noteFreeing(task);
    for (const slot of new Set(task.reads)) {
      (this.#readers.get(slot) as Readers).ready++;
      this.#noteTogether(slot);
    }
  }

  #noteFreeing(task: Task): void {
    if (!this.#isReady.has(task) || this.isLast(task)) return;
    if (this.#memory.freed(task) >= this.#memory.taken(task) * freedShare) this.#freeing.add(task);
  }

  /** Whether all that still need an operand can run now, and together take less than it. */
  #isReadTogether(slot: Slot): boolean {
    const { left, ready, taken } = this.#readers.get(slot) as Readers;
    return left > 1 && ready === left && this.#memory.innerBytes(slot) >= taken * freedShare;
  }

  #noteTogether(slot: Slot): void {
    if (!this.#isReadTogether(slot)) return;
    const readers = this.#readers.get(slot) as Readers;
    // Later they are fewer and take less, so that they are noted once.
    for (const task of readers.tasks.splice(0)) if (!this.#isDone.has(task) && !this.isLast(task)) this.#together.add(task);
  }

  #next(): Task | undefined {
    const isDone = (task: Task): boolean => this.#isDone.has(task);
    const isApart = (task: Task): boolean => isDone(task) || !task.reads.some((slot) => this.#isReadTogether(slot));
    return taken(this.#freeing, isDone) ?? taken(this.#together, isApart) ?? taken(this.#others, isDone) ?? taken(this.#last, isDone);
  }
}

/** The first item that is not past, which leaves the queue with all before it. */
function taken(queue: Earliest<Task>, isPast: (task: Task) => boolean): Task | undefined {
  for (let task = queue.first; task; task = queue.first) {
    queue.drop();
    if (!isPast(task)) return task;
  }
  return undefined;
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
