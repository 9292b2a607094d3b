import type { Slot } from "../kernels/kernel.js";
import { dependencies, type Task } from "./dependencies.js";
import type { Draft, DraftSlot } from "./draft.js";
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
  readonly #waiting: Int32Array;
  readonly #places: Float64Array;
  /** Bytes that nothing needs once a kernel has run, by its place. */
  readonly #freed: Float64Array;
  /** Bytes of each slot that lies inside the plan, else 0. */
  readonly #bytes: Float64Array;

  constructor(
    slots: readonly DraftSlot[],
    tasks: readonly Task[],
    /** Told of a kernel that is the last to touch another of its slots. */
    readonly onFreed: (index: number) => void = () => {},
  ) {
    this.#waiting = new Int32Array(slots.length);
    this.#places = new Float64Array(slots.length);
    this.#freed = new Float64Array(tasks.length);
    this.#bytes = new Float64Array(slots.length);
    for (let slot = 0; slot < slots.length; slot++) {
      const info = slots[slot] as DraftSlot; // within bounds
      if (info.binding === null) this.#bytes[slot] = alignedBytes(info);
    }
    for (const { slots: touched, index } of tasks) {
      for (let i = 0; i < touched.length; i++) {
        const slot = touched[i] as Slot;
        this.#waiting[slot] = (this.#waiting[slot] as number) + 1;
        this.#places[slot] = (this.#places[slot] as number) + index;
      }
    }
    for (let slot = 0; slot < slots.length; slot++) if (this.#waiting[slot] === 1) this.#free(slot, this.#places[slot] as number);
  }

  #free(slot: Slot, index: number): void {
    this.#freed[index] = (this.#freed[index] as number) + (this.#bytes[slot] as number);
  }

  /** Bytes of a slot that lies inside the plan, else 0. */
  innerBytes(slot: Slot): number {
    return this.#bytes[slot] as number;
  }

  /** Bytes that a kernel's results take. */
  taken({ writes }: Task): number {
    let bytes = 0;
    for (let i = 0; i < writes.length; i++) bytes += this.#bytes[writes[i] as Slot] as number;
    return bytes;
  }

  /** Bytes that nothing needs once the kernel has run: operands that it is the last to read, results that nobody reads. */
  freed(task: Task): number {
    return this.#freed[task.index] as number;
  }

  /** Runs a kernel; returns the bytes that are alive meanwhile. */
  run(task: Task): number {
    this.bytes += this.taken(task);
    const meanwhile = this.bytes;
    this.#leave(task);
    return meanwhile;
  }

  /** Runs kernels at the same time. */
  runTogether(tasks: readonly Task[]): void {
    for (const task of tasks) this.bytes += this.taken(task);
    for (const task of tasks) this.#leave(task);
  }

  #leave({ slots, index }: Task): void {
    for (let i = 0; i < slots.length; i++) {
      const slot = slots[i] as Slot;
      const left = (this.#waiting[slot] as number) - 1;
      const places = (this.#places[slot] as number) - index;
      this.#waiting[slot] = left;
      this.#places[slot] = places;
      if (left === 0) this.bytes -= this.#bytes[slot] as number;
      if (left !== 1) continue;
      this.#free(slot, places);
      this.onFreed(places);
    }
  }
}

/** The most bytes that are ever alive. */
export function peakOf(order: readonly Task[], slots: readonly DraftSlot[]): number {
  const memory = new LiveMemory(slots, order);
  return order.reduce((peak, task) => Math.max(peak, memory.run(task)), 0);
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
  /** By places of tasks: for how many others each waits, whether it can run, and whether it has. */
  readonly #missing: Int32Array;
  readonly #isReady: Uint8Array;
  readonly #isDone: Uint8Array;
  readonly #readers: (Readers | undefined)[];
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
    this.#missing = Int32Array.from(tasks, (task) => task.beforeCount);
    this.#isReady = new Uint8Array(tasks.length);
    this.#isDone = new Uint8Array(tasks.length);
    this.#readers = new Array(slots.length);
    this.#memory = new LiveMemory(slots, tasks, (index) => this.#noteFreeing(tasks[index] as Task));
    for (const task of tasks) {
      const taken = this.#memory.taken(task);
      const { reads } = task;
      for (let i = 0; i < reads.length; i++) {
        const slot = reads[i] as Slot; // within bounds
        const readers = this.#readers[slot];
        if (readers) {
          readers.tasks.push(task);
          readers.left++;
          readers.taken += taken;
        } else this.#readers[slot] = { tasks: [task], left: 1, ready: 0, taken };
      }
    }
  }

  run(): Task[] {
    for (const task of this.tasks) if (task.beforeCount === 0) this.#release(task);
    const order: Task[] = [];
    for (let next = this.#next(); next; next = this.#next()) {
      work.kernels += 1 + next.after.length;
      this.#isDone[next.index] = 1;
      this.#memory.run(next);
      order.push(next);
      const taken = this.#memory.taken(next);
      const { reads, after } = next;
      for (let i = 0; i < reads.length; i++) {
        const slot = reads[i] as Slot; // within bounds
        const readers = this.#readersOf(slot);
        readers.left--;
        readers.ready--;
        readers.taken -= taken;
        this.#noteTogether(slot);
      }
      for (let i = 0; i < after.length; i++) {
        const task = after[i] as Task; // within bounds
        const left = (this.#missing[task.index] as number) - 1;
        this.#missing[task.index] = left;
        if (left === 0) this.#release(task);
      }
    }
    return order;
  }

  #readersOf(slot: Slot): Readers {
    return this.#readers[slot] as Readers; // asked by one of them
  }

  #release(task: Task): void {
    this.#isReady[task.index] = 1;
    (this.isLast(task) ? this.#last : this.#others).add(task);
    this.#noteFreeing(task);
    const { reads } = task;
    for (let i = 0; i < reads.length; i++) {
      const slot = reads[i] as Slot; // within bounds
      this.#readersOf(slot).ready++;
      this.#noteTogether(slot);
    }
  }

  #noteFreeing(task: Task): void {
    if (!this.#isReady[task.index] || this.isLast(task)) return;
    if (this.#memory.freed(task) >= this.#memory.taken(task) * freedShare) this.#freeing.add(task);
  }

  /** Whether all that still need an operand can run now, and together take less than it. */
  #isReadTogether(slot: Slot): boolean {
    const { left, ready, taken } = this.#readersOf(slot);
    return left > 1 && ready === left && this.#memory.innerBytes(slot) >= taken * freedShare;
  }

  #noteTogether(slot: Slot): void {
    if (!this.#isReadTogether(slot)) return;
    const readers = this.#readersOf(slot);
    // Later they are fewer and take less, so that they are noted once.
    for (const task of readers.tasks.splice(0)) if (!this.#isDone[task.index] && !this.isLast(task)) this.#together.add(task);
  }

  #next(): Task | undefined {
    const isDone = (task: Task): boolean => this.#isDone[task.index] === 1;
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
  const kept = new Uint8Array(slots.length);
  for (let i = tasks.length - 1; i >= 0; i--) {
    const task = tasks[i] as Task; // within bounds
    if (task.kernel.kind !== "loop" && task.kernel.kind !== "copy") continue;
    if (task.after.some((user) => !last.has(user))) continue;
    let outside = 0;
    let inside = 0;
    let read = 0;
    const { reads, writes } = task;
    for (let at = 0; at < writes.length; at++) {
      const info = slots[writes[at] as Slot];
      if (info?.binding === null) inside += alignedBytes(info);
      else if (info) outside += alignedBytes(info);
    }
    for (let at = 0; at < reads.length; at++) {
      const info = slots[reads[at] as Slot];
      if (info?.binding === null && !kept[reads[at] as Slot]) read += alignedBytes(info);
    }
    if (inside > smallBytes || read > outside + smallBytes) continue;
    last.add(task);
    for (let at = 0; at < reads.length; at++) kept[reads[at] as Slot] = 1;
  }
  return last;
}

/** A plan's kernels in the order of `orderTasks`. */
export function ordered(draft: Draft): Draft {
  const tasks = dependencies(draft.kernels);
  const last = lastTasks(tasks, draft.slots);
  return { ...draft, kernels: orderTasks(tasks, draft.slots, (task) => last.has(task)).map((task) => task.kernel) };
}
