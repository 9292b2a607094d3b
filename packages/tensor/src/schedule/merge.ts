import { type Expr, ExprMakers, operandsOf } from "../kernels/expr.js";
import type { Kernel, LoopKernel, Slot, Store } from "../kernels/kernel.js";
import { substitute } from "../kernels/substitute.js";
import { sizeOf } from "../tensor/shape.js";
import type { Draft, DraftSlot } from "./build.js";
import { dependencies, type Task, taskOf } from "./dependencies.js";
import { lastTasks } from "./order.js";

/** Kernels between two that may become one, unless both wait for the end of the plan. */
const nearness = 12;

/**
 * Elementwise kernels over the same axes become one with several stores where one reads what the other reads or writes: each operand is
 * then read once. What one stores and the other loads is handed over as a value; where nothing else reads it, it is not stored at all.
 */
export function merged({ slots, kernels }: Draft, maxBindings: number = Number.POSITIVE_INFINITY): Draft {
  const order = dependencies(kernels);
  const merger = new Merger(order, slots, maxBindings);
  for (let at = 1; at < order.length; at++) {
    let task = order[at] as Task;
    for (let next = merger.step(task); next; next = merger.step(task)) task = next;
    at = task.index;
  }
  return { slots, kernels: order.map((task) => task.kernel) };
}

class Merger {
  readonly #last: Set<Task>;
  readonly #users = new Map<Slot, Set<Task>>();

  constructor(
    readonly order: Task[],
    readonly slots: readonly DraftSlot[],
    readonly maxBindings: number,
  ) {
    this.#last = lastTasks(order, slots);
    for (const task of order) this.#use(task);
  }

  #use(task: Task): void {
    for (const slot of task.slots) {
      const users = this.#users.get(slot);
      if (users) users.add(task);
      else this.#users.set(slot, new Set([task]));
    }
  }

  /** Merges one earlier kernel into a task, which then has another place in the order. Null where there is none. */
  step(later: Task): Task | null {
    if (!isPlain(later.kernel)) return null;
    for (const earlier of this.#partners(later)) {
      const kernel = this.#joined(earlier, later);
      if (!kernel || slotCount(kernel) > this.maxBindings) continue;
      return this.#replace(earlier, later, kernel);
    }
    return null;
  }

  /** Earlier kernels over the same axes that share memory with one, more than scalars, and may wait for it. */
  #partners(later: Task): Task[] {
    const { outer, inner } = later.kernel as LoopKernel;
    const found = new Set<Task>();
    for (const slot of later.slots) {
      if ((this.slots[slot]?.elementCount ?? 0) * 2 <= sizeOf(outer) * inner) continue;
      for (const earlier of this.#users.get(slot) ?? []) {
        if (earlier.index >= later.index || found.has(earlier)) continue;
        if (later.index - earlier.index > nearness && !(this.#last.has(earlier) && this.#last.has(later))) continue;
        const { kernel } = earlier;
        if (!isPlain(kernel) || kernel.inner !== inner || kernel.outer.join() !== outer.join() || hasDetour(earlier, later)) continue;
        found.add(earlier);
      }
    }
    return [...found].sort((a, b) => a.index - b.index);
  }

  /** One task in place of two. What lies between and needs the earlier one runs after both; the later one does not need it. */
  #replace(earlier: Task, later: Task, kernel: LoopKernel): Task {
    const { order } = this;
    const between = order.slice(earlier.index + 1, later.index);
    const users = between.filter((task) => reaches(earlier, task));
    const others = between.filter((task) => !users.includes(task));
    const task = taskOf(kernel, earlier.index + others.length);
    order.splice(earlier.index, between.length + 2, ...others, task, ...users);
    for (let i = earlier.index; i < order.length; i++) (order[i] as Task).index = i;
    for (const old of [earlier, later]) {
      for (const other of old.before) {
        other.after.delete(old);
        if (other !== earlier) link(other, task);
      }
      for (const other of old.after) {
        other.before.delete(old);
        if (other !== later) link(task, other);
      }
      for (const slot of old.slots) this.#users.get(slot)?.delete(old);
    }
    this.#use(task);
    if (this.#last.has(earlier) && this.#last.has(later)) this.#last.add(task);
    return task;
  }

  /** Both kernels as one; null where an element is read that the other writes elsewhere. */
  #joined(earlier: Task, later: Task): LoopKernel | null {
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
      if (substitute(load.index, make, variable) !== store.index || this.slots[load.slot]?.dtype !== load.dtype) return null;
      handed.set(load, store.value);
    }
    const after = remake(second, handed);
    const replaced = new Map(after.map((store) => [store.slot, store]));
    for (const load of loadsOf(first)) {
      const store = replaced.get(load.slot);
      if (store && substitute(load.index, make, variable) !== store.index) return null;
    }
    const isRead = (slot: Slot): boolean =>
      this.slots[slot]?.binding !== null || [...(this.#users.get(slot) ?? [])].some((task) => task !== later && task !== earlier);
    return { ...second, stores: [...before.filter(({ slot }) => isRead(slot)), ...after] };
  }
}

function link(first: Task, second: Task): void {
  first.after.add(second);
  second.before.add(first);
}

function isPlain(kernel: Kernel | undefined): kernel is LoopKernel {
  return kernel?.kind === "loop" && kernel.reductions.length === 0 && kernel.stores.every((store) => store.scope === "element");
}

function slotCount(kernel: LoopKernel): number {
  return new Set([...kernel.stores.map((store) => store.slot), ...loadsOf(kernel).map((load) => load.slot)]).size;
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
