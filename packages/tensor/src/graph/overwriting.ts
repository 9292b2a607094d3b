import type { Device } from "./device.js";
import { type Held, heldBy, liveInputs } from "./live.js";
import { topological } from "./node.js";
import { Storage } from "./storage.js";
import type { Tensor } from "./tensor.js";
import { worthComputing } from "./unread.js";

/** What is kept and what is computed ahead has to find room in this share of the budget. */
const roomShare = 15 / 16;
/** What is computed ahead may take as much as the contents that go, or so much. */
const leastBytes = 65536;

/**
 * What assignments mean for expressions that were written before them: contents that one may still read stay as the version before, in
 * their own memory, and the new ones go into other memory. Where the budget is short they are replaced in place, after what was written
 * over them is computed.
 */
export class Overwriting {
  /** Handles whose values have to be computed in the plan that overwrites what they depend on. */
  readonly compute: readonly Tensor[];
  /** Handles that cannot be computed afterwards. */
  readonly #lost: Tensor[];
  /** Memory for the new contents of storages whose old ones are kept. */
  readonly #next = new Map<Storage, Storage>();

  constructor(
    readonly device: Device,
    readonly storages: ReadonlySet<Storage>,
    asked: ReadonlySet<Tensor> = new Set(),
    canKeep = true,
  ) {
    const isPresent = ({ storage, version }: Held): boolean => storages.has(storage) && version === storage.version;
    const isPast = (held: Held | null): boolean => held !== null && storages.has(held.storage) && held.version !== held.storage.version;
    const former = device.unread.dependents(isPast, asked);
    const present = device.unread.dependents(isPresent, asked);
    const pastBytes = sumBytes([...storages].filter((storage) => storage.hasPast));
    const keptBytes = sumBytes(present.storages);
    const { counters, limits } = device;
    const room = Math.max(limits.budgetBytes * roomShare - counters.bytesInUse, 0);
    const isKept = canKeep && 2 * keptBytes - pastBytes <= room;
    if (isKept) for (const storage of present.storages) this.#next.set(storage, new Storage(device, storage.dtype, storage.elementCount));
    const going = isKept ? [former] : [former, present];
    const left = Math.min(isKept ? room + pastBytes - 2 * keptBytes : room, Math.max(isKept ? pastBytes : sumBytes(storages), leastBytes));
    const all = { results: going.flatMap(({ results }) => results), inner: going.flatMap(({ inner }) => inner), storages };
    this.compute = worthComputing(all, left);
    this.#lost = [...all.results, ...all.inner];
    // Where nobody reads the versions before, their memory serves the next ones.
    const isNeeded =
      this.compute.length > 0 ||
      topological(
        [...asked].map(({ node }) => node),
        liveInputs,
      ).some((node) => isPast(heldBy(node)));
    if (!isNeeded) for (const storage of storages) storage.forgetPast();
    device.memory.beforeWriting([...storages].filter((storage) => !this.#next.has(storage)));
  }

  /** Where the new contents of a storage are computed. */
  targetOf(storage: Storage): Storage {
    return this.#next.get(storage) ?? storage;
  }

  /** Storages that were made for it. */
  get made(): readonly Storage[] {
    return [...this.#next.values()];
  }

  /** The new contents are there. */
  done(): void {
    this.device.unread.forget(this.#lost);
    for (const storage of this.storages) {
      const next = this.#next.get(storage);
      if (next) storage.replaceWith(next);
      else storage.overwritten();
    }
  }
}

function sumBytes(storages: Iterable<Storage>): number {
  let bytes = 0;
  for (const storage of storages) bytes += storage.bytes;
  return bytes;
}
