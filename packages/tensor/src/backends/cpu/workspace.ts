import { largest } from "../../tensor/extremes.js";
import type { Heap } from "./heap.js";

/** What a workspace needs of its backend. */
export interface WorkspaceHost {
  /** Frees a block once nothing that runs uses it. */
  release(address: number): void;
  /** True where nothing runs after `beforeExchange`, so that a block is free as soon as it is released. */
  readonly releasesAtOnce: boolean;
  beforeExchange(): void;
}

/**
 * The memory in which all plans keep their intermediates. Plans run one after another and leave nothing behind, so one block, as large as
 * the largest plan needs, serves them all.
 */
export class Workspace {
  /** Bytes that each living plan needs. */
  readonly #needs = new Map<object, number>();
  #bytes = 0;
  #address = 0;
  /** Making room for the other block may do what waits, a removal among it. */
  #isExchanging = false;
  /** Grows whenever the block was exchanged: addresses inside it are stale. */
  generation = 0;

  constructor(
    readonly heap: Heap,
    readonly host: WorkspaceHost,
  ) {}

  /** Bytes of the block that a plan may have which needs more. */
  get reusableBytes(): number {
    return this.host.releasesAtOnce ? this.#bytes : 0;
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
    if (!this.#needs.delete(plan) || this.#isExchanging) return;
    const needed = largest(this.#needs.values(), 0);
    if (needed * 2 < this.#bytes) this.#exchange(needed);
  }

  #exchange(bytes: number): void {
    const { releasesAtOnce } = this.host;
    this.host.beforeExchange();
    const [oldAddress, oldBytes] = [this.#address, this.#bytes];
    const allocate = (size: number): number => (size === 0 ? 0 : this.heap.allocate(size));
    this.#isExchanging = true;
    if (releasesAtOnce && oldBytes > 0) this.host.release(oldAddress);
    try {
      this.#address = allocate(bytes);
      this.#bytes = bytes;
    } catch (error) {
      if (releasesAtOnce) this.#address = allocate(oldBytes);
      throw error;
    } finally {
      this.generation++;
      this.#isExchanging = false;
    }
    if (!releasesAtOnce && oldBytes > 0) this.host.release(oldAddress);
  }
}
