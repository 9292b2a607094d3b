import type { Node } from "./node.js";
import type { Tensor } from "./tensor.js";

/** How a packed tensor lies on its device: its numbers are an expression over the tensors that hold its blocks. */
export interface Packing {
  /** The type of its blocks: Q4_K, nf4, … */
  readonly type: string;
  /** What holds the blocks, by the names that the type's equation has for it. */
  readonly parts: Readonly<Record<string, Tensor>>;
  /** Bytes that the parts take on the device. */
  readonly bytes: number;
}

/** Of the nodes that stand for packed tensors. */
const packings = new WeakMap<Node, Packing>();

/** Notes that a node stands for a packed tensor: its value is never kept, whoever reads it. */
export function notePacking(node: Node, packing: Packing): void {
  packings.set(node, packing);
}

/** How the tensor that a node stands for is packed; null for any other node. */
export function packingOf(node: Node): Packing | null {
  return packings.get(node) ?? null;
}
