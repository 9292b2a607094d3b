import { DeviceError } from "../tensor/errors.js";
import { inputsOf, type Node } from "./node.js";
import type { Storage, Version } from "./storage.js";

/** A version of a storage. */
export interface Held {
  readonly storage: Storage;
  readonly version: Version;
}

/** Where the values of nodes lie that were computed already, so that expressions built before reuse them. */
const realized = new WeakMap<Node, Held>();

/** The storages that nodes were assigned to. */
const homes = new WeakMap<Node, Storage>();

/** Notes that a node is the next value of a storage. */
export function noteAssigned(node: Node, home: Storage): void {
  homes.set(node, home);
}

/** The storage that a node is a value of, the present one or another; null for expressions that were not assigned. */
export function homeOf(node: Node): Storage | null {
  return node.op === "buffer" ? node.storage : (homes.get(node) ?? null);
}

/** The version of a storage that holds a node's value, if one does. */
export function heldBy(node: Node): Held | null {
  const held = node.op === "buffer" ? node : realized.get(node);
  return held?.storage.at(held.version) ? held : null;
}

/** Whether a node is what its storage holds now; false for one of its other values. */
export function isPresent(node: Node): boolean {
  const held = node.op === "buffer" ? node : realized.get(node);
  return held !== undefined && held.version === held.storage.version;
}

/** Notes that a storage holds a node's value. */
export function noteRealized(node: Node, storage: Storage): void {
  realized.set(node, { storage, version: storage.version });
}

/**
 * The storage that holds a node's value, if any. Throws DeviceError for a buffer whose contents were overwritten and are gone.
 */
export function realizedStorage(node: Node): Storage | null {
  if (node.op === "buffer") return node.storage.at(node.version) ?? lost(node);
  const found = realized.get(node);
  const storage = found?.storage.at(found.version);
  return storage && !storage.isDisposed ? storage : null;
}

function lost(node: Node & { readonly op: "buffer" }): never {
  throw new DeviceError(
    `An expression reads a ${node.dtype} tensor [${node.shape.join(", ")}] as it was before it was assigned to, and that value is gone. Read or realize the expression before the assignment runs.`,
    node.storage.device.name,
  );
}

/** Inputs of a node; nodes whose value lies in memory are leaves. */
export function liveInputs(node: Node): readonly Node[] {
  return node.op === "buffer" || realizedStorage(node) ? [] : inputsOf(node);
}

/** The node of a storage's present contents. */
export function bufferOf(storage: Storage, like: Node): Node & { readonly op: "buffer" } {
  return { op: "buffer", storage, version: storage.version, shape: like.shape, dtype: like.dtype };
}
