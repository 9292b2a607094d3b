/** A member of a sequence. Members with a smaller label come first. */
export interface Place<T> {
  readonly item: T;
  label: number;
  previous: Place<T> | null;
  next: Place<T> | null;
}

/** Labels between neighbours at first. */
const spacing = 2 ** 20;
/** How much emptier a range of labels twice as wide must be before its members are spread over it. */
const thinning = 1.5;

/**
 * Items in an order that may change, of which it is known at once which of two comes first: a linked list with labels, of which some are
 * given anew where no number is left between two (Bender et al. 2002, "Two simplified algorithms for maintaining order in a list").
 */
export class Sequence<T> {
  #first: Place<T> | null = null;

  constructor(items: readonly T[]) {
    let last: Place<T> | null = null;
    for (let i = 0; i < items.length; i++) {
      const place: Place<T> = { item: items[i] as T, label: (i + 1) * spacing, previous: last, next: null };
      if (last) last.next = place;
      else this.#first = place;
      last = place;
    }
  }

  get first(): Place<T> | null {
    return this.#first;
  }

  *[Symbol.iterator](): Generator<T> {
    for (let place = this.#first; place; place = place.next) yield place.item;
  }

  remove(place: Place<T>): void {
    if (place.previous) place.previous.next = place.next;
    else this.#first = place.next;
    if (place.next) place.next.previous = place.previous;
  }

  /** Puts an item behind a member; returns its place. */
  insertAfter(before: Place<T>, item: T): Place<T> {
    if ((before.next?.label ?? Number.POSITIVE_INFINITY) - before.label < 2) this.#spread(before);
    const end = before.next?.label ?? before.label + 2 * spacing;
    const place: Place<T> = { item, label: Math.floor((before.label + end) / 2), previous: before, next: before.next };
    if (before.next) before.next.previous = place;
    before.next = place;
    return place;
  }

  /** Puts an item in front of a member; returns its place. */
  insertBefore(after: Place<T>, item: T): Place<T> {
    if (after.previous) return this.insertAfter(after.previous, item);
    const place: Place<T> = { item, label: after.label - spacing, previous: null, next: after };
    after.previous = place;
    this.#first = place;
    return place;
  }

  /** Spreads the members around one over the smallest range of labels that is thinly enough occupied. */
  #spread(around: Place<T>): void {
    let [left, right, count] = [around, around, 1];
    let limit = 1;
    for (let width = 2; ; width *= 2) {
      limit /= thinning;
      const start = Math.floor(around.label / width) * width;
      while (left.previous && left.previous.label >= start) [left, count] = [left.previous, count + 1];
      while (right.next && right.next.label < start + width) [right, count] = [right.next, count + 1];
      if (count / width > limit || width < 4 * count) continue;
      let label = start;
      for (let place: Place<T> | null = left; place; place = place === right ? null : place.next) {
        place.label = label;
        label += Math.floor(width / count);
      }
      return;
    }
  }
}
