import type { LoopKernel, Slot } from "../kernels/kernel.js";
import { type Bound, boundOf, withSlots } from "../kernels/template.js";
import { type DType, dtypeBytes } from "../tensor/dtype.js";
import type { Draft, DraftSlot } from "./draft.js";
import { slotsOfCopy } from "./in-place.js";
import { type Place, Sequence } from "./sequence.js";
import { work } from "./work.js";

/**
 * Updates of an input that end up in that input are stored where they belong, and nothing else of it is written: kernels that read the old
 * contents run before, and those that need the update first read a copy of the old contents.
 */
export function overwritten(draft: Draft): Draft {
  const copies = draft.kernels.filter((kernel) => kernel.kind === "copy");
  if (copies.length === 0 || !draft.kernels.some((kernel) => overOf(kernel))) return draft;
  const edit = new Edit(draft);
  for (const copy of copies) edit.withoutCopy(copy);
  return { slots: edit.slots, kernels: [...edit.sequence] };
}

/** The slots of which a kernel stores one over what the other holds; null for other kernels. */
function overOf({ template: { kernel }, slots }: Bound): { readonly from: Slot; readonly into: Slot } | null {
  if (kernel.kind !== "loop" || !kernel.over) return null;
  return { from: slots[kernel.over.from] as Slot, into: slots[kernel.over.into] as Slot };
}

/** A plan's kernels while some are moved and renamed. */
class Edit {
  readonly sequence: Sequence<Bound>;
  readonly slots: DraftSlot[];
  readonly #places = new Map<Bound, Place<Bound>>();
  /** The kernels that write a slot, the one entered last at the end. */
  readonly #writers = new Map<Slot, Set<Place<Bound>>>();
  readonly #readers = new Map<Slot, Set<Place<Bound>>>();

  constructor(draft: Draft) {
    this.sequence = new Sequence(draft.kernels);
    this.slots = [...draft.slots];
    for (let place = this.sequence.first; place; place = place.next) this.#enter(place);
  }

  /** Stores the updates that a copy brings into an input there, where the copy does nothing else. */
  withoutCopy(copy: Bound): void {
    const { from, to } = slotsOfCopy(copy);
    // One that was renamed reads an input.
    if (!this.#places.has(copy)) return;
    const updates = this.#updatesBetween(to, from);
    if (!updates) return;
    for (const update of updates) this.#overwrite(update, copy);
    const place = this.#places.get(copy) as Place<Bound>; // copies stay themselves until then
    // A result that is also returned is copied out of the input, no longer into it.
    if (this.slots[from]?.binding === null) this.#leave(place);
    else
      this.#replace(
        place,
        withSlots(
          copy,
          () => to,
          () => from,
        ),
      );
  }

  /** The slots that updates write, one over the other, from an input to a slot; null where that is not what the slot holds. */
  #updatesBetween(input: Slot, slot: Slot): Slot[] | null {
    const slots: Slot[] = [];
    for (let at = slot; at !== input; ) {
      const writer = this.#writerOf(at);
      const over = writer && overOf(writer.item);
      if (!over || over.into !== at) return null;
      // What lies between is nobody else's result.
      if (at !== slot && this.slots[at]?.binding !== null) return null;
      slots.unshift(at);
      at = over.from;
    }
    return this.slots[input]?.binding === null ? null : slots;
  }

  #enter(place: Place<Bound>): void {
    this.#places.set(place.item, place);
    for (const slot of place.item.writes) addTo(this.#writers, slot, place);
    for (const slot of place.item.reads) addTo(this.#readers, slot, place);
  }

  #leave(place: Place<Bound>): void {
    this.#places.delete(place.item);
    for (const slot of place.item.reads) this.#readers.get(slot)?.delete(place);
    for (const slot of place.item.writes) this.#writers.get(slot)?.delete(place);
    this.sequence.remove(place);
  }

  #writerOf(slot: Slot): Place<Bound> | undefined {
    return [...(this.#writers.get(slot) ?? [])].at(-1);
  }

  #replace(place: Place<Bound>, kernel: Bound): void {
    const made = this.sequence.insertAfter(place, kernel);
    this.#leave(place);
    this.#enter(made);
  }

  /** Moves a kernel behind another one; returns its place. */
  #move(place: Place<Bound>, before: Place<Bound>): Place<Bound> {
    this.#leave(place);
    const moved = this.sequence.insertAfter(before, place.item);
    this.#enter(moved);
    return moved;
  }

  /** Lets the update that writes `slot` write the slot that it is an update of; all but `copy` then read that one. */
  #overwrite(slot: Slot, copy: Bound): void {
    const { item: update } = this.#writerOf(slot) as Place<Bound>; // updatesBetween found it
    const { from: input } = overOf(update) as { readonly from: Slot };
    const late = this.#lateReaders(update, input);
    let stored = this.#alone(update);
    if (late.length > 0 || stored.reads.includes(input)) {
      const kept = this.#keep(input, this.#places.get(update) as Place<Bound>);
      for (const reader of late) this.#replace(this.#places.get(reader) as Place<Bound>, renamed(reader, input, kept));
      stored = renamed(stored, input, kept);
    }
    this.#replace(this.#places.get(update) as Place<Bound>, renamed(stored, slot, input));
    for (const reader of [...(this.#readers.get(slot) ?? [])])
      if (reader.item !== copy) this.#replace(reader, renamed(reader.item, slot, input));
  }

  /** The loop of an update, which writes what it stores and nothing else. */
  #alone(update: Bound): Bound {
    const { over: _, ...rest } = update.kernel as LoopKernel; // overOf says so
    return boundOf(rest, (slot): DType => (this.slots[slot] as DraftSlot).dtype); // the plan's own number
  }

  /** Moves kernels that read the old contents of `input` before the update; returns those that depend on it and cannot. */
  #lateReaders(update: Bound, input: Slot): Bound[] {
    const first = this.#places.get(update) as Place<Bound>;
    let last = first;
    for (const reader of this.#readers.get(input) ?? []) if (reader.label > last.label) last = reader;
    if (last === first) return [];
    const dependents = this.#dependentsOf(first, last);
    // The update and what needs it come behind the others.
    let at = this.#move(first, last);
    const late: Bound[] = [];
    for (const place of dependents) {
      if (place.item.reads.includes(input)) late.push(place.item);
      at = this.#move(place, at);
    }
    return late;
  }

  /** Kernels between two, and the last of them, that must stay behind the first, in order. */
  #dependentsOf(first: Place<Bound>, last: Place<Bound>): Place<Bound>[] {
    const dependents = new Set<Place<Bound>>([first]);
    const note = (place: Place<Bound>, after: Place<Bound>): void => {
      work.kernels++;
      if (place.label > after.label && place.label <= last.label) dependents.add(place);
    };
    for (const place of dependents) {
      for (const slot of place.item.writes) for (const reader of this.#readers.get(slot) ?? []) note(reader, place);
      for (const slots of [place.item.reads, place.item.writes])
        for (const slot of slots) for (const writer of this.#writers.get(slot) ?? []) note(writer, place);
    }
    dependents.delete(first);
    return [...dependents].sort((a, b) => a.label - b.label);
  }

  /** A copy of a slot from right before a kernel. */
  #keep(slot: Slot, before: Place<Bound>): Slot {
    const { dtype, elementCount } = this.slots[slot] as DraftSlot; // the plan's own number
    const kept = this.slots.push({ dtype, elementCount, binding: null }) - 1;
    const copy = boundOf({ kind: "copy", bytes: elementCount * dtypeBytes[dtype], from: slot, to: kept }, () => dtype);
    this.#enter(this.sequence.insertBefore(before, copy));
    return kept;
  }
}

function addTo(lists: Map<Slot, Set<Place<Bound>>>, slot: Slot, place: Place<Bound>): void {
  const list = lists.get(slot);
  if (list) list.add(place);
  else lists.set(slot, new Set([place]));
}

function renamed(kernel: Bound, from: Slot, to: Slot): Bound {
  const swap = (slot: Slot): Slot => (slot === from ? to : slot);
  return withSlots(kernel, swap, swap);
}
