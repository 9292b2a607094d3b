import type { LoopKernel, SingleKernel, Slot } from "../kernels/kernel.js";
import { readsOf, writesOf } from "../kernels/slots.js";
import { withSlots } from "../kernels/template.js";
import { dtypeBytes } from "../tensor/dtype.js";
import type { Draft, DraftSlot } from "./build.js";

/** A loop kernel that stores an update over what another slot holds. */
type Update = LoopKernel & { readonly over: NonNullable<LoopKernel["over"]> };

/**
 * Updates of an input that end up in that input are stored where they belong, and nothing else of it is written: kernels that read the old
 * contents run before, and those that need the update first read a copy of the old contents.
 */
export function overwritten(draft: Draft): Draft {
  const copies = draft.kernels.filter((kernel) => kernel.kind === "copy");
  if (copies.length === 0 || !draft.kernels.some(isUpdate)) return draft;
  const edit = new Edit(draft);
  for (const copy of copies) {
    const updates = updatesBetween(copy.to, copy.from, edit);
    if (!updates) continue;
    const held = draft.slots[copy.from];
    for (const update of updates) edit.overwrite(update, copy);
    // A result that is also returned is copied out of the input, no longer into it.
    edit.replace(copy, held?.binding === null ? null : { ...copy, from: copy.to, to: copy.from });
  }
  return { slots: edit.slots, kernels: edit.kernels };
}

function isUpdate(kernel: SingleKernel): kernel is Update {
  return kernel.kind === "loop" && kernel.over !== undefined;
}

/** The slots that updates write, one over the other, from an input to a slot; null where that is not what the slot holds. */
function updatesBetween(input: Slot, slot: Slot, edit: Edit): Slot[] | null {
  const slots: Slot[] = [];
  for (let at = slot; at !== input; ) {
    const writer = edit.writerOf(at);
    if (!writer || !isUpdate(writer) || writer.over.into !== at) return null;
    // What lies between is nobody else's result.
    if (at !== slot && edit.slots[at]?.binding !== null) return null;
    slots.unshift(at);
    at = writer.over.from;
  }
  return edit.slots[input]?.binding === null ? null : slots;
}

/** A plan's kernels while some are moved and renamed. */
class Edit {
  kernels: SingleKernel[];
  readonly slots: DraftSlot[];
  readonly #writers = new Map<Slot, SingleKernel>();
  readonly #readers = new Map<Slot, Set<SingleKernel>>();

  constructor(draft: Draft) {
    this.kernels = [...draft.kernels];
    this.slots = [...draft.slots];
    for (const kernel of this.kernels) this.#enter(kernel);
  }

  writerOf(slot: Slot): SingleKernel | undefined {
    return this.#writers.get(slot);
  }

  replace(old: SingleKernel, next: SingleKernel | null): void {
    const at = this.kernels.indexOf(old);
    for (const slot of readsOf(old)) this.#readers.get(slot)?.delete(old);
    for (const slot of writesOf(old)) if (this.#writers.get(slot) === old) this.#writers.delete(slot);
    if (next) this.#enter(next);
    if (next) this.kernels[at] = next;
    else this.kernels.splice(at, 1);
  }

  /** Lets the update that writes `slot` write the slot that it is an update of; all but `copy` then read that one. */
  overwrite(slot: Slot, copy: SingleKernel): void {
    const update = this.#writers.get(slot) as Update; // updatesBetween found it
    const input = update.over.from;
    const late = this.#lateReaders(update, input);
    const { over: _, ...rest } = update;
    let stored: SingleKernel = rest;
    if (late.length > 0 || readsOf(rest).includes(input)) {
      const kept = this.#keep(input, update);
      for (const reader of late) this.replace(reader, renamed(reader, input, kept));
      stored = renamed(rest, input, kept);
    }
    this.replace(update, renamed(stored, slot, input));
    for (const reader of [...(this.#readers.get(slot) ?? [])]) if (reader !== copy) this.replace(reader, renamed(reader, slot, input));
  }

  /** Moves kernels that read the old contents of `input` before the update; returns those that depend on it and cannot. */
  #lateReaders(update: Update, input: Slot): SingleKernel[] {
    const at = this.kernels.indexOf(update);
    const readers = this.#readers.get(input) ?? new Set();
    const later = this.kernels.slice(at + 1);
    const last = later.findLastIndex((kernel) => readers.has(kernel));
    if (last < 0) return [];
    const span = later.slice(0, last + 1);
    const dependents = dependentsOf(update, span);
    const before = span.filter((kernel) => !dependents.has(kernel));
    this.kernels = [...this.kernels.slice(0, at), ...before, update, ...dependents, ...later.slice(last + 1)];
    return [...dependents].filter((kernel) => readers.has(kernel));
  }

  /** A copy of a slot from right before a kernel. */
  #keep(slot: Slot, before: SingleKernel): Slot {
    const { dtype, elementCount } = this.slots[slot] as DraftSlot; // the plan's own number
    const kept = this.slots.push({ dtype, elementCount, binding: null }) - 1;
    const copy: SingleKernel = { kind: "copy", bytes: elementCount * dtypeBytes[dtype], from: slot, to: kept };
    this.#enter(copy);
    this.kernels.splice(this.kernels.indexOf(before), 0, copy);
    return kept;
  }

  #enter(kernel: SingleKernel): void {
    for (const slot of writesOf(kernel)) this.#writers.set(slot, kernel);
    for (const slot of readsOf(kernel)) this.#readers.set(slot, (this.#readers.get(slot) ?? new Set()).add(kernel));
  }
}

/** Kernels of a span, in order, that must stay behind the one in front of it. */
function dependentsOf(first: SingleKernel, span: readonly SingleKernel[]): Set<SingleKernel> {
  const dependents = new Set<SingleKernel>();
  const written = new Set(writesOf(first));
  const touched = new Set([...written, ...readsOf(first)]);
  for (const kernel of span) {
    const [reads, writes] = [readsOf(kernel), writesOf(kernel)];
    if (!reads.some((slot) => written.has(slot)) && !writes.some((slot) => touched.has(slot))) continue;
    dependents.add(kernel);
    for (const slot of writes) written.add(slot);
    for (const slot of [...reads, ...writes]) touched.add(slot);
  }
  return dependents;
}

function renamed(kernel: SingleKernel, from: Slot, to: Slot): SingleKernel {
  const swap = (slot: Slot): Slot => (slot === from ? to : slot);
  return withSlots(kernel, swap, swap);
}
