import type { Slot } from "../kernels/kernel.js";
import type { Bound } from "../kernels/template.js";

/** A kernel of a plan with the kernels that must run after it. */
export interface Task {
  /** Place in the order that the dependencies were read from. */
  readonly index: number;
  readonly kernel: Bound;
  /** Each once, as are those that are written. */
  readonly reads: readonly Slot[];
  readonly writes: readonly Slot[];
  /** Both, each once. */
  readonly slots: readonly Slot[];
  /** How many others must run before it. */
  beforeCount: number;
  readonly after: Task[];
}

/** Which kernels of an order must keep theirs: those where one writes what the other reads or writes. */
export function dependencies(kernels: readonly Bound[]): Task[] {
  const writers: (Task | undefined)[] = [];
  const readers: (Task[] | undefined)[] = [];
  /** For each kernel the last one that was found to wait for it. */
  const waits = new Int32Array(kernels.length).fill(-1);
  const waitFor = (task: Task, other: Task | undefined): void => {
    if (!other || other === task || waits[other.index] === task.index) return;
    waits[other.index] = task.index;
    task.beforeCount++;
    other.after.push(task);
  };
  return kernels.map((kernel, index) => {
    const task = taskOf(kernel, index);
    const { reads, writes } = task;
    for (let i = 0; i < reads.length; i++) {
      const slot = reads[i] as Slot; // within bounds
      waitFor(task, writers[slot]);
      const list = readers[slot];
      if (list) list.push(task);
      else readers[slot] = [task];
    }
    for (let i = 0; i < writes.length; i++) {
      const slot = writes[i] as Slot; // within bounds
      waitFor(task, writers[slot]);
      const list = readers[slot];
      if (list) for (let j = 0; j < list.length; j++) waitFor(task, list[j]);
      writers[slot] = task;
      readers[slot] = undefined;
    }
    return task;
  });
}

/** A kernel as a task that depends on nothing yet. */
function taskOf(kernel: Bound, index: number): Task {
  return { index, kernel, reads: distinct(kernel.reads), writes: kernel.writes, slots: kernel.slots, beforeCount: 0, after: [] };
}

/** Composites may read a slot twice. */
function distinct(slots: readonly Slot[]): readonly Slot[] {
  for (let i = 1; i < slots.length; i++) if (slots.indexOf(slots[i] as Slot) < i) return [...new Set(slots)];
  return slots;
}
