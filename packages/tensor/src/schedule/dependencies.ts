import type { Slot } from "../kernels/kernel.js";
import type { Bound } from "../kernels/template.js";

/** A kernel of a plan with the kernels that must run before and after it. */
export interface Task {
  /** Place in the order that the dependencies were read from. */
  readonly index: number;
  readonly kernel: Bound;
  readonly reads: readonly Slot[];
  readonly writes: readonly Slot[];
  /** Both, each once. */
  readonly slots: readonly Slot[];
  readonly before: Set<Task>;
  readonly after: Set<Task>;
}

/** Which kernels of an order must keep theirs: those where one writes what the other reads or writes. */
export function dependencies(kernels: readonly Bound[]): Task[] {
  const writer = new Map<Slot, Task>();
  const readers = new Map<Slot, Task[]>();
  return kernels.map((kernel, index) => {
    const task = taskOf(kernel, index);
    const waitFor = (other: Task | undefined): void => {
      if (!other || other === task) return;
      task.before.add(other);
      other.after.add(task);
    };
    for (const slot of task.reads) {
      waitFor(writer.get(slot));
      const list = readers.get(slot);
      if (list) list.push(task);
      else readers.set(slot, [task]);
    }
    for (const slot of task.writes) {
      waitFor(writer.get(slot));
      for (const reader of readers.get(slot) ?? []) waitFor(reader);
      writer.set(slot, task);
      readers.set(slot, []);
    }
    return task;
  });
}

/** A kernel as a task that depends on nothing yet. */
function taskOf(kernel: Bound, index: number): Task {
  const { reads, writes } = kernel;
  return { index, kernel, reads, writes, slots: [...new Set([...reads, ...writes])], before: new Set(), after: new Set() };
}
