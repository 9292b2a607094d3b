import { sizeOf } from "../tensor/shape.js";
import { eventLoopTurn } from "./event-loop.js";
import { type Held, heldBy, liveInputs } from "./live.js";
import { type Node, topological } from "./node.js";
import type { Storage } from "./storage.js";
import type { Tensor } from "./tensor.js";

/** Handles that are kept, and earlier ones that are remembered. */
const maxRecent = 512;
const maxEarlier = 1024;
/** Values on the way to others that are computed before what they depend on is overwritten. */
const maxInner = 64;

let untrackedDepth = 0;

/** Runs `fn`, whose intermediate tensors no caller ever sees: nobody can read them later. */
export function untracked<T>(fn: () => T): T {
  untrackedDepth++;
  try {
    return fn();
  } finally {
    untrackedDepth--;
  }
}

/** The handles of a device whose values nobody has read yet, so that an assignment does not change what they stand for. */
export class UnreadHandles {
  /** The latest of this turn of the event loop, which are kept: a WeakRef for each operation would cost more than the operation. */
  #recent: Tensor[] = [];
  /** Earlier ones. */
  #earlier: WeakRef<Tensor>[] = [];
  #count = 0;
  #isTurnAwaited = false;

  /** How many there ever were. */
  get count(): number {
    return this.#count;
  }

  add(tensor: Tensor): void {
    if (untrackedDepth > 0) return;
    this.#count++;
    if (this.#recent.push(tensor) >= 2 * maxRecent) this.#remember(this.#recent.splice(0, maxRecent).filter(({ isUsed }) => !isUsed));
    if (this.#isTurnAwaited) return;
    this.#isTurnAwaited = true;
    void eventLoopTurn().then(() => {
      this.#isTurnAwaited = false;
      this.weaken();
    });
  }

  /** Handles that were read in the meantime are of no interest any more, and nothing keeps what they hold. */
  dropRead(): void {
    if (this.#recent.length > 0) this.#recent = this.#recent.filter(isUnread);
  }

  /** Keeps none of the handles alive any more. */
  weaken(): void {
    this.#remember(this.#recent.splice(0).slice(-maxRecent));
  }

  #remember(handles: readonly Tensor[]): void {
    for (const handle of handles) if (isUnread(handle)) this.#earlier.push(new WeakRef(handle));
    if (this.#earlier.length > 2 * maxEarlier) this.#earlier = this.#earlier.slice(-maxEarlier);
  }

  #alive(): Tensor[] {
    const earlier = this.#earlier.flatMap((reference) => {
      const handle = reference.deref();
      return handle && isUnread(handle) ? [{ reference, handle }] : [];
    });
    this.#earlier = earlier.map(({ reference }) => reference);
    this.dropRead();
    return [...earlier.map(({ handle }) => handle), ...this.#recent];
  }

  /** The handles whose values depend on contents that are about to be overwritten; those in `asked` do not count. */
  dependents(isConcerned: (held: Held) => boolean, asked: ReadonlySet<Tensor> = new Set()): Dependents {
    const handles = this.#alive().filter((handle) => !asked.has(handle) && liveInputs(handle.peek()).length > 0);
    const dependent = new Set<Node>();
    // What depends on a value that is gone, or that was disposed, cannot be read any more.
    const broken = new Set<Node>();
    const storages = new Set<Storage>();
    const used = new Set<Node>();
    for (const node of topological(
      handles.map((handle) => handle.peek()),
      liveInputs,
    )) {
      const held = heldBy(node);
      if (node.op === "buffer" && (!held || held.storage.at(held.version)?.isDisposed)) broken.add(node);
      if (held && isConcerned(held)) {
        dependent.add(node);
        storages.add(held.storage);
      }
      for (const input of liveInputs(node)) {
        used.add(input);
        if (dependent.has(input)) dependent.add(node);
        if (broken.has(input)) broken.add(node);
      }
    }
    const found = handles.filter((handle) => dependent.has(handle.peek()) && !broken.has(handle.peek()));
    return {
      results: found.filter((handle) => !used.has(handle.peek())),
      inner: found.filter((handle) => used.has(handle.peek())),
      storages,
    };
  }

  /** Handles are of no interest any more. */
  forget(handles: Iterable<Tensor>): void {
    const gone = new Set(handles);
    if (gone.size === 0) return;
    this.#recent = this.#recent.filter((handle) => !gone.has(handle));
    this.#earlier = this.#earlier.filter((reference) => {
      const handle = reference.deref();
      return handle && !gone.has(handle);
    });
  }
}

function isUnread(handle: Tensor): boolean {
  return handle.peek().op !== "buffer";
}

/** Handles that depend on contents of storages. */
export interface Dependents {
  /** Those of which nothing else was made. */
  readonly results: readonly Tensor[];
  /** Those on the way to others: most are garbage that was not collected yet. */
  readonly inner: readonly Tensor[];
  /** The storages that they depend on. */
  readonly storages: ReadonlySet<Storage>;
}

/**
 * The handles to compute before what they depend on is gone for good: results as long as they take no more than `limitBytes`, values on the
 * way all or none.
 */
export function worthComputing({ results, inner }: Dependents, limitBytes: number): Tensor[] {
  const bytesOf = (tensors: readonly Tensor[]): number => tensors.reduce((sum, { shape }) => sum + 4 * sizeOf(shape), 0);
  const chosen: Tensor[] = [];
  let left = limitBytes;
  for (const tensor of results) {
    const bytes = bytesOf([tensor]);
    if (bytes > left) continue;
    left -= bytes;
    chosen.push(tensor);
  }
  return inner.length <= maxInner && bytesOf(inner) <= left ? [...chosen, ...inner] : chosen;
}
