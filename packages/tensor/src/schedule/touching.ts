import type { Slot } from "../kernels/kernel.js";
import type { Bound } from "../kernels/template.js";
import type { Place, Sequence } from "./sequence.js";
import { work } from "./work.js";

/** Two kernels as one, and the kernels between them that come after it; null where it stands in the place of the first. */
export interface Joined {
  readonly first: Place<Bound>;
  readonly kernel: Bound;
  readonly dependents: readonly Place<Bound>[] | null;
}

/** Kernels between two that are looked at to find those that need the first one's results; with more of them none is moved. */
const maxBetween = 192;

/** Readers of a slot beyond so many are found by hash. */
const fewReaders = 8;

/** Who writes and who reads each slot, as kernels are joined. */
export class Index {
  readonly #writers: (Place<Bound> | undefined)[];
  readonly #readers: (Place<Bound>[] | Set<Place<Bound>> | undefined)[];

  constructor(
    readonly sequence: Sequence<Bound>,
    slotCount: number,
  ) {
    this.#writers = new Array(slotCount);
    this.#readers = new Array(slotCount);
    for (let place = sequence.first; place; place = place.next) this.#enter(place);
  }

  #enter(place: Place<Bound>): void {
    const { reads, writes } = place.item;
    for (let i = 0; i < writes.length; i++) this.#writers[writes[i] as Slot] = place;
    for (let i = 0; i < reads.length; i++) {
      const slot = reads[i] as Slot;
      const readers = this.#readers[slot];
      if (readers === undefined) this.#readers[slot] = [place];
      else if (readers instanceof Set) readers.add(place);
      // Composites may read a slot twice.
      else if (readers.includes(place)) continue;
      else if (readers.push(place) > fewReaders) this.#readers[slot] = new Set(readers);
    }
  }

  #leave(place: Place<Bound>): void {
    const { reads } = place.item;
    for (let i = 0; i < reads.length; i++) {
      const readers = this.#readers[reads[i] as Slot];
      if (readers instanceof Set) readers.delete(place);
      else if (readers?.includes(place)) readers.splice(readers.indexOf(place), 1);
    }
    this.sequence.remove(place);
  }

  /** The kernels before one that write what it reads, the nearest first. */
  producersOf(place: Place<Bound>): Place<Bound>[] {
    const producers: Place<Bound>[] = [];
    const { reads } = place.item;
    for (let i = 0; i < reads.length; i++) {
      const writer = this.#writers[reads[i] as Slot];
      if (writer && writer.label < place.label && !producers.includes(writer)) producers.push(writer);
    }
    // Few and almost in order, so that sorting them by insertion is quickest.
    for (let i = 1; i < producers.length; i++) {
      const producer = producers[i] as Place<Bound>;
      let at = i;
      for (; at > 0 && (producers[at - 1] as Place<Bound>).label < producer.label; at--) producers[at] = producers[at - 1] as Place<Bound>;
      producers[at] = producer;
    }
    return producers;
  }

  isReadByOthers(slot: Slot, first: Place<Bound>, second: Place<Bound>): boolean {
    const readers = this.#readers[slot];
    // Those two are at most two of them.
    if (readers instanceof Set) return readers.size > 2 || [...readers].some((reader) => reader !== first && reader !== second);
    return readers?.some((reader) => reader !== first && reader !== second) ?? false;
  }

  /** The kernels between two that need the first one's results, in order; null when the second needs one of them, or they are many. */
  dependentsOf(first: Place<Bound>, second: Place<Bound>): Place<Bound>[] | null {
    const dependents: Place<Bound>[] = [];
    let left = maxBetween;
    for (let place: Place<Bound> | undefined = first, count = 0; place; place = dependents[count++]) {
      const { writes } = place.item;
      for (let i = 0; i < writes.length; i++) {
        const all = this.#readers[writes[i] as Slot];
        if (!all) continue;
        if (all instanceof Set && all.size > left) return null;
        const readers = all instanceof Set ? [...all] : all;
        for (let j = 0; j < readers.length; j++) {
          const reader = readers[j] as Place<Bound>; // within bounds
          work.kernels++;
          if (--left < 0) return null;
          if (reader === second && place !== first) return null;
          if (reader.label >= second.label || reader.label <= first.label || dependents.includes(reader)) continue;
          dependents.push(reader);
        }
      }
    }
    return dependents.length > 1 ? dependents.sort((a, b) => a.label - b.label) : dependents;
  }

  /** Puts a joined kernel where the second one stood, and behind it what needs the first; or where the first one stood. Returns its place. */
  replace({ first, kernel, dependents }: Joined, second: Place<Bound>): Place<Bound> {
    const made = this.sequence.insertAfter(dependents ? second : first, kernel);
    let last = made;
    for (const dependent of dependents ?? []) {
      this.#leave(dependent);
      last = this.sequence.insertAfter(last, dependent.item);
      this.#enter(last);
    }
    this.#leave(first);
    this.#leave(second);
    this.#enter(made);
    return made;
  }
}
