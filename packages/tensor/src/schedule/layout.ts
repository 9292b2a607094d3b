import type { Slot } from "../kernels/kernel.js";
import type { Bound } from "../kernels/template.js";
import type { DraftSlot } from "./draft.js";
import { alignedBytes } from "./liveness.js";
import { work } from "./work.js";

/** Where each inner slot lies in the plan's memory. */
export interface Layout {
  readonly offsets: Map<Slot, number>;
  readonly arenaBytes: number;
  /** The largest sum of slots alive at one time: no layout can need less. */
  readonly lowerBoundBytes: number;
}

/** A slot's life, from the first to the last kernel that touches it, and what it takes. */
interface Life {
  readonly slot: Slot;
  readonly first: number;
  last: number;
  readonly bytes: number;
}

/**
 * Gives inner slots places by liveness, where the kernels of a group run at the same time: those alive at the same time do not overlap. Largest first, equals in the order of their lives (so
 * that equals alone take no more than is alive at a time), at the lowest free offset.
 */
export function layOut(groups: readonly (readonly Bound[])[], slots: readonly DraftSlot[]): Layout {
  const lives = livesOf(groups, slots);
  const occupied = new Occupied(groups.length);
  const offsets = new Map<Slot, number>();
  let arenaBytes = 0;
  for (const { slot, first, last, bytes } of [...lives].sort((a, b) => b.bytes - a.bytes || a.first - b.first)) {
    const start = occupied.take(first, last, bytes);
    offsets.set(slot, start);
    arenaBytes = Math.max(arenaBytes, start + bytes);
  }
  return { offsets, arenaBytes, lowerBoundBytes: mostAlive(lives, groups.length) };
}

function livesOf(groups: readonly (readonly Bound[])[], slots: readonly DraftSlot[]): Life[] {
  const known: (Life | undefined)[] = new Array(slots.length);
  const lives: Life[] = [];
  const touch = (slot: Slot, step: number): void => {
    const life = known[slot];
    if (life) life.last = step;
    const info = slots[slot];
    if (life || info?.binding !== null) return;
    lives.push((known[slot] = { slot, first: step, last: step, bytes: alignedBytes(info) }));
  };
  for (let step = 0; step < groups.length; step++) {
    const group = groups[step] as readonly Bound[]; // within bounds
    for (const { writes } of group) for (let i = 0; i < writes.length; i++) touch(writes[i] as Slot, step);
    for (const { reads } of group) for (let i = 0; i < reads.length; i++) touch(reads[i] as Slot, step);
  }
  return lives;
}

function mostAlive(lives: readonly Life[], stepCount: number): number {
  const change = new Array<number>(stepCount + 1).fill(0);
  for (const { first, last, bytes } of lives) {
    change[first] = (change[first] ?? 0) + bytes;
    change[last + 1] = (change[last + 1] ?? 0) - bytes;
  }
  let [alive, most] = [0, 0];
  for (const bytes of change) {
    alive += bytes;
    most = Math.max(most, alive);
  }
  return most;
}

/** Ranges of addresses, those that touch as one, in ascending order. */
class Ranges {
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];

  /** The first range that ends behind an address. */
  #endingBehind(address: number): number {
    let [low, high] = [0, this.#ends.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#ends[middle] ?? 0) > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  add(start: number, end: number): void {
    const from = this.#endingBehind(start - 1);
    let to = from;
    while (to < this.#starts.length && (this.#starts[to] ?? 0) <= end) to++;
    if (to > from) {
      const [low, high] = [Math.min(start, this.#starts[from] ?? start), Math.max(end, this.#ends[to - 1] ?? end)];
      this.#starts[from] = low;
      this.#ends[from] = high;
      if (to > from + 1) {
        this.#starts.splice(from + 1, to - from - 1);
        this.#ends.splice(from + 1, to - from - 1);
      }
    } else {
      insert(this.#starts, from, start);
      insert(this.#ends, from, end);
    }
  }

  /** Where the range ends that reaches into so many bytes behind an address; the address itself where none does. */
  behind(address: number, bytes: number): number {
    const starts = this.#starts;
    const ends = this.#ends;
    let high = ends.length - 1;
    if (high < 0 || (ends[high] as number) <= address) return address;
    for (let low = 0; low < high; ) {
      const middle = (low + high) >> 1;
      if ((ends[middle] as number) > address) high = middle;
      else low = middle + 1;
    }
    return (starts[high] as number) < address + bytes ? (ends[high] as number) : address;
  }
}

/** `splice` for one number, without a list of what it removes. */
function insert(numbers: number[], at: number, value: number): void {
  for (let i = numbers.length; i > at; i--) numbers[i] = numbers[i - 1] as number;
  numbers[at] = value;
}

/**
 * Which addresses are taken at which steps: a segment tree over the steps. Each of its ranges of steps knows what is taken during all of
 * it, and what is taken at any of its steps. Neighbouring addresses join, so that a search passes gaps and not slots.
 */
class Occupied {
  readonly #leaves: number;
  readonly #throughout: (Ranges | undefined)[] = [];
  readonly #sometimes: (Ranges | undefined)[] = [];

  constructor(stepCount: number) {
    this.#leaves = Math.max(stepCount, 1);
  }

  /** The nodes of the tree that together are the steps from `first` to `last`. */
  #parts(first: number, last: number): number[] {
    const parts: number[] = [];
    let [low, high] = [first + this.#leaves, last + this.#leaves + 1];
    for (; low < high; low >>= 1, high >>= 1) {
      if (low & 1) parts.push(low++);
      if (high & 1) parts.push(--high);
    }
    return parts;
  }

  /** The nodes above some, each once. */
  #above(parts: readonly number[]): number[] {
    const above: number[] = [];
    for (let i = 0; i < parts.length; i++)
      for (let node = (parts[i] as number) >> 1; node >= 1 && !above.includes(node); node >>= 1) above.push(node);
    return above;
  }

  /** Takes so many bytes from step `first` to `last`, at the lowest address from which on they are free; returns it. */
  take(first: number, last: number, bytes: number): number {
    const parts = this.#parts(first, last);
    const above = this.#above(parts);
    const start = this.#lowest(parts, above, bytes);
    const end = start + bytes;
    for (let i = 0; i < parts.length; i++) {
      const node = parts[i] as number; // within bounds
      (this.#throughout[node] ??= new Ranges()).add(start, end);
      (this.#sometimes[node] ??= new Ranges()).add(start, end);
    }
    for (let i = 0; i < above.length; i++) (this.#sometimes[above[i] as number] ??= new Ranges()).add(start, end);
    return start;
  }

  #lowest(parts: readonly number[], above: readonly number[], bytes: number): number {
    const all: Ranges[] = [];
    for (let i = 0; i < parts.length; i++) {
      const taken = this.#sometimes[parts[i] as number];
      if (taken) all.push(taken);
    }
    for (let i = 0; i < above.length; i++) {
      const taken = this.#throughout[above[i] as number];
      if (taken) all.push(taken);
    }
    let address = 0;
    for (let before = -1; before !== address; ) {
      before = address;
      for (let i = 0; i < all.length; i++) address = (all[i] as Ranges).behind(address, bytes); // within bounds
      work.kernels += all.length;
    }
    return address;
  }
}
