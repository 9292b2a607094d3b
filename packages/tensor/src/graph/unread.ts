import { sizeOf } from "../tensor/shape.js";
import type { Storage } from "../tensor/storage.js";
import type { Tensor } from "../tensor/tensor.js";
import { type Held, heldBy, liveInputs } from "./live.js";
import { type Node, topological } from "./node.js";

/** The latest handles that are looked at when a tensor is assigned to. */
const maxHandles = 2048;
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
  #references: WeakRef<Tensor>[] = [];
  #count = 0;

  /** How many there ever were. */
  get count(): number {
    return this.#count;
  }

  add(tensor: Tensor): void {
    if (untrackedDepth > 0) return;
    this.#count++;
    this.#references.push(new WeakRef(tensor));
    if (this.#references.length >= 2 * maxHandles) this.#references = this.#references.slice(-maxHandles);
  }

  /** The handles whose values depend on contents that are about to be overwritten; those in `asked` do not count. */
  dependents(isConcerned: (held: Held) => boolean, asked: ReadonlySet<Tensor> = new Set()): Dependents {
    const handles = this.#references.slice(-maxHandles).flatMap((reference) => {
      const handle = reference.deref();
      return handle && !asked.has(handle) && liveInputs(handle.node).length > 0 ? [{ reference, handle, node: handle.node }] : [];
    });
    const dependent = new Set<Node>();
    const storages = new Set<Storage>();
    const used = new Set<Node>();
    for (const node of topological(
      handles.map(({ node }) => node),
      liveInputs,
    )) {
      const held = heldBy(node);
      if (held && isConcerned(held)) {
        dependent.add(node);
        storages.add(held.storage);
      }
      for (const input of liveInputs(node)) {
        used.add(input);
        if (dependent.has(input)) dependent.add(node);
      }
    }
    this.#references = handles.map(({ reference }) => reference);
    const found = handles.filter(({ node }) => dependent.has(node)).map(({ handle }) => handle);
    return { results: found.filter(({ node }) => !used.has(node)), inner: found.filter(({ node }) => used.has(node)), storages };
  }

  /** Handles are of no interest any more. */
  forget(handles: Iterable<Tensor>): void {
    const gone = new Set(handles);
    if (gone.size === 0) return;
    this.#references = this.#references.filter((reference) => {
      const handle = reference.deref();
      return handle && !gone.has(handle);
    });
  }
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
