import { GraphBuilder } from "../graph/builder.js";
import type { Target } from "../graph/executor.js";
import { realizedStorage } from "../graph/live.js";
import type { Marks } from "../graph/marks.js";
import { inputAt, type Node } from "../graph/node.js";
import type { NumberedGraph } from "../graph/numbered.js";
import type { Storage } from "../graph/storage.js";
import { codeOf, type Forms, hashOf } from "../graph/words.js";
import { work } from "./work.js";

/** What identifies a graph apart from which storages it reads and writes. */
export interface Structure {
  /** Equal, all together, for graphs that one plan can serve, where they are of the same forms. */
  readonly words: readonly Int32Array[];
  readonly forms: Forms;
  readonly hash: number;
}

/** The graph behind some targets, in which equal nodes are one. */
export interface LiveGraph {
  /** Its roots are the targets' values. Nodes may read others than the graph says, which are equal. */
  readonly graph: NumberedGraph;
  /** The storages that hold the values of some nodes, which read nothing, by their numbers. */
  readonly storages: ReadonlyMap<number, Storage>;
  /** Those storages in the order of first appearance. */
  readonly inputs: readonly Storage[];
}

/** Describes the graph behind the targets; equal nodes are described once, and what is detached as the value itself. Their forms are told by `forms`. */
export function structureOf(targets: readonly Target[], forms: Forms): Structure & LiveGraph {
  const inputNumbers = new Map<Storage, number>();
  const storages = new Map<number, Storage>();
  const builder = new GraphBuilder();
  const { marks } = builder;

  const leaf = (node: Node, storage: Storage): void => {
    let input = inputNumbers.get(storage);
    if (input === undefined) inputNumbers.set(storage, (input = inputNumbers.size));
    const form = forms.ofLeaf(node);
    const hash = builder.hash(form, input);
    const found = builder.find(hash, form, input);
    if (found >= 0) marks.set(node, found);
    else storages.set(builder.close(node, form, hash, input), storage);
  };
  const close = (node: Node, storage: Storage | null): void => {
    closedCount++;
    if (storage) {
      leaf(node, storage);
      return;
    }
    if (node.op === "detach") {
      marks.set(node, marks.get(node.x)); // inputs come first
      return;
    }
    const form = forms.of(node);
    for (let i = 0, input = inputAt(node, 0); input; input = inputAt(node, ++i)) builder.input(marks.get(input));
    const hash = builder.hash(form);
    const found = builder.find(hash, form);
    if (found < 0) {
      builder.close(node, form, hash);
      return;
    }
    builder.drop();
    marks.set(node, found);
  };
  let closedCount = 0;
  visit(
    targets.map(({ value }) => value),
    marks,
    close,
  );
  work.nodes += closedCount;
  const roots = targets.map(({ value }) => marks.get(value));
  const results = targets.flatMap(({ storage }, i) => [roots[i] as number, inputNumbers.get(storage) ?? -1, codeOf(storage.dtype)]);
  const { words, hash } = builder.describe();
  return {
    words: [...words, new Int32Array(results)],
    forms,
    hash: Math.imul(hash, 31) ^ hashOf(results),
    graph: builder.all(roots),
    storages,
    inputs: [...inputNumbers.keys()],
  };
}

/** Tells `close` of each node, inputs before users: depth first. It marks them; and nothing is read to compute what a storage holds. */
function visit(roots: readonly Node[], marks: Marks, close: (node: Node, storage: Storage | null) => void): void {
  // No node that is entered is behind itself, so that it has no mark until it is closed.
  const nodes: Node[] = [];
  const next: number[] = [];
  const enter = (node: Node): void => {
    const storage = realizedStorage(node);
    if (storage) {
      close(node, storage);
      return;
    }
    nodes.push(node);
    next.push(0);
  };
  for (const root of roots) {
    if (marks.get(root) < 0) enter(root);
    while (nodes.length > 0) {
      const top = nodes.length - 1;
      const node = nodes[top] as Node;
      const at = next[top] as number;
      const input = inputAt(node, at);
      if (input) {
        next[top] = at + 1;
        if (marks.get(input) < 0) enter(input);
      } else {
        nodes.pop();
        next.pop();
        close(node, null);
      }
    }
  }
}

/** Whether one plan serves both. */
export function areAlike(a: Structure, b: Structure): boolean {
  return a.hash === b.hash && a.forms === b.forms && a.words.every((list, i) => areEqual(list, b.words[i] as Int32Array)); // as many lists
}

function areEqual(a: Int32Array, b: Int32Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
