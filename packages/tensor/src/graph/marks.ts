import type { Node } from "./node.js";

/** A node as the walk over its graph that numbered it last has left it. */
type Marked = Node & { mark?: number };

/** Marks are never given twice, so that those of earlier walks say nothing to later ones. */
let next = 0;

/**
 * The numbers that one walk gives to nodes, written on the nodes: filling a Map with the nodes of a training step takes longer than a walk
 * over them does. Who makes nodes meanwhile checks what it finds, since a copy of a node has the mark of that.
 */
export class Marks {
  readonly #first = next;

  set(node: Node, number: number): void {
    const mark = this.#first + number;
    (node as Marked).mark = mark;
    if (mark >= next) next = mark + 1;
  }

  /** The number of a node; one that is out of range, or negative, for nodes without one. */
  get(node: Node): number {
    const { mark } = node as Marked;
    return mark === undefined ? -1 : mark - this.#first;
  }
}
