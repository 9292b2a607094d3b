import { inputsOf, type Node } from "../graph/node.js";
import type { FindSlot } from "./lower.js";

/**
 * Where to cut the expression behind a kernel's node so that no part reads more memories than a kernel may bind: the inner node whose
 * share of what is read comes nearest to half. Null where the whole is within the limit, or nothing can be cut.
 */
export function splitPoint(root: Node, findSlot: FindSlot, maxReads: number): Node | null {
  if (maxReads === Number.POSITIVE_INFINITY) return null;
  const reads = new Map<Node, ReadonlySet<unknown>>();
  const readsOf = (node: Node): ReadonlySet<unknown> => {
    const known = reads.get(node);
    if (known) return known;
    const slot = node === root ? null : findSlot(node);
    const found: Set<unknown> = slot === null ? new Set(inputsOf(node).flatMap((input) => [...readsOf(input)])) : new Set([slot]);
    reads.set(node, found);
    return found;
  };
  const total = readsOf(root).size;
  if (total <= maxReads) return null;
  let best: Node | null = null;
  const distance = (node: Node): number => Math.abs(readsOf(node).size - total / 2);
  for (const [node, { size }] of reads) {
    if (node === root || size < 2 || size === total || findSlot(node) !== null) continue;
    if (!best || distance(node) < distance(best)) best = node;
  }
  return best;
}
