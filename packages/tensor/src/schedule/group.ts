import type { MatmulKernel, SingleKernel } from "../kernels/kernel.js";
import { productsOf } from "../kernels/products.js";
import type { Bound, Template } from "../kernels/template.js";
import { largest } from "../tensor/extremes.js";
import { sizeOf } from "../tensor/shape.js";
import { dependencies, type Task } from "./dependencies.js";
import type { Draft, DraftSlot } from "./draft.js";
import { LiveMemory, lastTasks } from "./order.js";
import { Sequence } from "./sequence.js";

/** Kernels further down the order that may be drawn to the front to join a group. */
const lookAhead = 24;
/** Multiplications, or elements times sixteen, below which a kernel takes about as long as the wait between two kernels. */
const smallWork = 2 ** 24;
/** Elements of the matrices that all products of a group bring along at most: each is copied before it is multiplied. */
const packedElements = 2 ** 20;

/**
 * The plan with independent kernels grouped, so that it takes few turns: small ones that lie near each other in its order, where that
 * raises the peak of memory not at all, and those of `lastTasks` by their distance from the first.
 */
export function grouped({ kernels, slots }: Draft): Bound[][] {
  const order = dependencies(kernels);
  const last = lastTasks(order, slots);
  const groups = [...nearby(order, slots, last), ...levels(order, last)];
  return groups.map((tasks) => tasks.map(({ kernel }) => kernel));
}

function nearby(order: readonly Task[], slots: readonly DraftSlot[], last: ReadonlySet<Task>): Task[][] {
  const before = new LiveMemory(slots, order);
  /** Bytes alive at each kernel, should all that is drawn to the front stay until then. */
  const alive = Float64Array.from(order, (task) => before.run(task));
  const limit = largest(alive, 0);
  const memory = new LiveMemory(slots, order);
  const waiting = new Sequence(order.filter((task) => !last.has(task)));
  const missing = Int32Array.from(order, (task) => task.beforeCount);
  const sizes = new Sizes();
  const groups: Task[][] = [];
  for (let first = waiting.first; first; first = waiting.first) {
    const group = [first.item];
    waiting.remove(first);
    /** The most that is alive at those that were passed. */
    let passedBytes = 0;
    let taken = memory.taken(first.item);
    let packed = sizes.packedBy(first.item.kernel);
    let mayHoldLarge = sizes.isSmall(first.item.kernel);
    const passed: Task[] = [];
    for (let place = first.next, seen = 0; place && seen < lookAhead; place = place.next, seen++) {
      const task = place.item;
      const small = sizes.isSmall(task.kernel);
      const bytes = memory.taken(task);
      const mayJoin =
        (small || mayHoldLarge) &&
        missing[task.index] === 0 &&
        memory.bytes + taken + bytes <= limit &&
        packed + sizes.packedBy(task.kernel) <= packedElements &&
        passedBytes + bytes <= limit;
      passed.push(task);
      if (!mayJoin) {
        passedBytes = Math.max(passedBytes, alive[task.index] as number);
        continue;
      }
      for (const other of passed) if (other !== task) alive[other.index] = (alive[other.index] as number) + bytes;
      passedBytes = Math.max(passed.length > 1 ? passedBytes + bytes : 0, alive[task.index] as number);
      group.push(task);
      waiting.remove(place);
      taken += bytes;
      packed += sizes.packedBy(task.kernel);
      mayHoldLarge &&= small;
    }
    for (const task of group) for (const after of task.after) missing[after.index] = (missing[after.index] as number) - 1;
    memory.runTogether(group);
    groups.push(group);
  }
  return groups;
}

/** Some of an order's tasks by the longest way to them from those that wait for none of the others. */
function levels(order: readonly Task[], among: ReadonlySet<Task>): Task[][] {
  const level = new Int32Array(order.length);
  const groups: Task[][] = [];
  for (const task of order) {
    if (!among.has(task)) continue;
    const own = level[task.index] as number;
    for (const other of task.after) level[other.index] = Math.max(level[other.index] as number, own + 1);
    const group = groups[own];
    if (group) group.push(task);
    else groups[own] = [task];
  }
  return groups;
}

/** What grouping asks of kernels, once for all of a template. */
class Sizes {
  readonly #small = new Map<Template, boolean>();
  readonly #packed = new Map<Template, number>();

  isSmall({ template }: Bound): boolean {
    let answer = this.#small.get(template);
    if (answer === undefined) this.#small.set(template, (answer = isSmall(template.kernel)));
    return answer;
  }

  packedBy({ template }: Bound): number {
    let answer = this.#packed.get(template);
    if (answer === undefined) this.#packed.set(template, (answer = packedBy(template.kernel)));
    return answer;
  }
}

function isSmall(kernel: SingleKernel): boolean {
  switch (kernel.kind) {
    case "loop":
      return sizeOf(kernel.outer) * kernel.inner * (kernel.reductions.length + kernel.stores.length) * 16 <= smallWork;
    case "matmul":
      return kernel.m * kernel.n * depthOf(kernel) <= smallWork;
    case "copy":
      return kernel.bytes * 4 <= smallWork;
    case "scatterAdd":
    case "composite":
      return false;
  }
}

function packedBy(kernel: SingleKernel): number {
  return kernel.kind === "matmul" ? depthOf(kernel) * kernel.n : 0;
}

/** Multiplications for an element of one matrix, over all batches. */
function depthOf(kernel: MatmulKernel): number {
  return sizeOf(kernel.batch) * productsOf(kernel).reduce((sum, { k }) => sum + k, 0);
}
