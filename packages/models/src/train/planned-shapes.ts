import type { Batch } from "../data/batches.js";

/** The shapes of batches that plans were made for so far. */
export class PlannedShapes {
  readonly #keys = new Set<string>();

  /** Notes a step's batches; whether a plan is made for one of them. */
  add(batches: readonly Batch[]): boolean {
    const before = this.#keys.size;
    for (const [i, batch] of batches.entries()) this.#keys.add(planKey(batch, i === batches.length - 1));
    return this.#keys.size > before;
  }
}

/** What of a batch decides which plan its step runs: its shape, and whether it is the last of several. */
function planKey({ rowCount, length, rowLimit, positions }: Batch, isLast: boolean): string {
  return [rowCount, length, ...(positions ? [rowLimit] : []), isLast ? "last" : "accumulated"].join();
}
