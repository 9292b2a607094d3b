/** Items in the order of a number, the smallest first: a binary heap. */
export class Earliest<T extends { readonly index: number }> {
  readonly #items: T[] = [];

  get first(): T | undefined {
    return this.#items[0];
  }

  add(item: T): void {
    const items = this.#items;
    let at = items.push(item) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const other = items[parent] as T;
      if (other.index <= item.index) break;
      items[at] = other;
      at = parent;
    }
    items[at] = item;
  }

  /** Takes the first item out. */
  drop(): void {
    const items = this.#items;
    const last = items.pop();
    if (last === undefined || items.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && (items[child + 1] as T).index < (items[child] as T).index) child++;
      const other = items[child] as T;
      if (other.index >= last.index) break;
      items[at] = other;
      at = child;
    }
    items[at] = last;
  }
}
