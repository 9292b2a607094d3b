import { largest } from "../../tensor/extremes.js";
import type { Heap } from "./heap.js";

/**
 * The memory in which all plans keep their intermediates. Plans run one after another and leave nothing behind, so one block, as large as
 * the largest plan needs, serves them all.
 */
export class Workspace {
  /** Bytes that each living plan needs. */
  readonly #needs = new Map<object, number>();
  #bytes = 0;
  #address = 0;
  /** Grows whenever the block was exchanged: addresses inside it are stale. */
  generation = 0;

  constructor(
    readonly heap: Heap,
    /** Frees a block once nothing enqueued uses it. */
    readonly release: (address: number) => void,
    /** True where nothing is ever enqueued, so that a block is free as soon as it is released. */
    readonly releasesAtOnce: boolean,
  ) {}

  /** Bytes of the block that a plan may have which needs more. */
  get reusableBytes(): number {
    return this.releasesAtOnce ? this.#bytes : 0;
  }

  get address(): number {
    return this.#address;
  }

  /** Makes room for a plan. Throws DeviceError when the budget does not hold it, and is then as it was. */
  add(plan: object, bytes: number): void {
    if (bytes > this.#bytes) this.#exchange(bytes);
    this.#needs.set(plan, bytes);
  }

  /** A plan is gone; gives memory back when the others need less than half of it. */
  remove(plan: object): void {
    if (!this.#needs.delete(plan)) return;
    const needed = largest(this.#needs.values(), 0);
    if (needed * 2 < this.#bytes) this.#exchange(needed);
  }

  #exchange(bytes: number): void {
    const [oldAddress, oldBytes] = [this.#address, this.#bytes];
    const allocate = (size: number): number => (size === 0 ? 0 : this.heap.allocate(size));
    if (this.releasesAtOnce && oldBytes > 0) this.release(oldAddress);
    try {
      this.#address = allocate(bytes);
      this.#bytes = bytes;
    } catch (error) {
      if (this.releasesAtOnce) this.#address = allocate(oldBytes);
      throw error;
    } finally {
      this.generation++;
    }
    if (!this.releasesAtOnce && oldBytes > 0) this.release(oldAddress);
  }
}
