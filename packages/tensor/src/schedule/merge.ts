import { type Expr, ExprMakers, operandsOf } from "../kernels/expr.js";
import type { Kernel, LoopKernel, Slot, Store } from "../kernels/kernel.js";
import { substitute } from "../kernels/wasm/lower.js";
import { sizeOf } from "../tensor/shape.js";
import type { Draft, DraftSlot } from "./build.js";
import { dependencies, type Task } from "./dependencies.js";
import { lastTasks } from "./order.js";

/** Kernels between two that may become one, unless both wait for the end of the plan. */
const nearness = 12;

/**
 * Elementwise kernels over the same axes become one with several stores where one reads what the other reads or writes: each operand is
 * then read once. What one stores and the other loads is handed over as a value; where nothing else reads it, it is not stored at all.
 */
export function merged(draft: Draft, maxBindings: number = Number.POSITIVE_INFINITY): Draft {
  const { slots } = draft;
  let kernels: Kernel[] = [...draft.kernels];
  let tasks = dependencies(kernels);
  let last = lastTasks(tasks, slots);
  for (let at = 1; at < kernels.length; at++) {
    if (!isPlain(kernels[at])) continue;
    for (;;) {
      const later = tasks[at] as Task;
      const joint = partners(later, tasks, slots, last)
        .map((earlier) => ({ earlier, kernel: joined(earlier, later, slots, tasks) }))
        .find((pair): pair is { earlier: Task; kernel: LoopKernel } => pair.kernel !== null && slotCount(pair.kernel) <= maxBindings);
      if (!joint) break;
      // What lies between and needs the earlier one runs after both; the later one does not need it.
      const { earlier, kernel } = joint;
      const between = tasks.slice(earlier.index + 1, at);
      const users = between.filter((task) => reaches(earlier, task));
      const others = between.filter((task) => !users.includes(task));
      const order = (list: readonly Task[]): Kernel[] => list.map((task) => task.kernel);
      kernels = [...kernels.slice(0, earlier.index), ...order(others), kernel, ...order(users), ...kernels.slice(at + 1)];
      at = earlier.index + others.length;
      tasks = dependencies(kernels);
      last = lastTasks(tasks, slots);
    }
  }
  return { slots, kernels };
}

function isPlain(kernel: Kernel | undefined): kernel is LoopKernel {
  return kernel?.kind === "loop" && kernel.reductions.length === 0 && kernel.stores.every((store) => store.scope === "element");
}

function slotCount(kernel: LoopKernel): number {
  return new Set([...kernel.stores.map((store) => store.slot), ...loadsOf(kernel).map((load) => load.slot)]).size;
}

/** Earlier kernels over the same axes that share memory with one, more than scalars, and may wait for it. */
function partners(later: Task, tasks: readonly Task[], slots: readonly DraftSlot[], last: ReadonlySet<Task>): Task[] {
  const { outer, inner } = later.kernel as LoopKernel;
  const touched = new Set([...later.reads, ...later.writes].filter((slot) => (slots[slot]?.elementCount ?? 0) * 2 > sizeOf(outer) * inner));
  return tasks.slice(0, later.index).filter(({ index, kernel, reads, writes }) => {
    const earlier = tasks[index] as Task;
    if (later.index - index > nearness && !(last.has(earlier) && last.has(later))) return false;
    if (!isPlain(kernel) || kernel.inner !== inner || kernel.outer.join() !== outer.join()) return false;
    return [...reads, ...writes].some((slot) => touched.has(slot)) && !hasDetour(earlier, later);
  });
}

/** True when some other kernel must run between the two. */
function hasDetour(from: Task, to: Task): boolean {
  return [...from.after].some((task) => task !== to && reaches(task, to));
}

/** True when one kernel must run before the other, or is it. */
function reaches(from: Task, to: Task): boolean {
  const seen = new Set<Task>();
  const visit = (task: Task): boolean => {
    if (task === to) return true;
    if (task.index > to.index || seen.has(task)) return false;
    seen.add(task);
    return [...task.after].some(visit);
  };
  return visit(from);
}

/** Both kernels as one; null where an element is read that the other writes elsewhere. */
function joined(earlier: Task, later: Task, slots: readonly DraftSlot[], tasks: readonly Task[]): LoopKernel | null {
  const make = new ExprMakers();
  const variable = (axis: number, size: number): Expr => make.variable(axis, size);
  const remake = (kernel: LoopKernel, seen: Map<Expr, Expr>): Store[] =>
    kernel.stores.map((store) => ({
      ...store,
      index: substitute(store.index, make, variable, seen),
      value: substitute(store.value, make, variable, seen),
    }));
  const [first, second] = [earlier.kernel as LoopKernel, later.kernel as LoopKernel];
  const before = remake(first, new Map());
  const written = new Map(before.map((store) => [store.slot, store]));
  if (written.size < before.length || second.stores.some(({ slot }) => written.has(slot))) return null;
  const handed = new Map<Expr, Expr>();
  for (const load of loadsOf(second)) {
    const store = written.get(load.slot);
    if (!store) continue;
    // A narrower type would round what is handed over.
    if (substitute(load.index, make, variable) !== store.index || slots[load.slot]?.dtype !== load.dtype) return null;
    handed.set(load, store.value);
  }
  const after = remake(second, handed);
  const replaced = new Map(after.map((store) => [store.slot, store]));
  for (const load of loadsOf(first)) {
    const store = replaced.get(load.slot);
    if (store && substitute(load.index, make, variable) !== store.index) return null;
  }
  const isRead = (slot: Slot): boolean =>
    slots[slot]?.binding !== null || tasks.some((task) => task !== later && task !== earlier && task.reads.includes(slot));
  return { ...second, stores: [...before.filter(({ slot }) => isRead(slot)), ...after] };
}

function loadsOf(kernel: LoopKernel): (Expr & { readonly op: "load" })[] {
  const loads: (Expr & { readonly op: "load" })[] = [];
  const seen = new Set<Expr>();
  const visit = (expr: Expr): void => {
    if (seen.has(expr)) return;
    seen.add(expr);
    if (expr.op === "load") loads.push(expr);
    for (const operand of operandsOf(expr)) visit(operand);
  };
  for (const { index, value } of kernel.stores) {
    visit(index);
    visit(value);
  }
  return loads;
}
