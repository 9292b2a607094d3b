import { GraphBuilder } from "../graph/builder.js";
import type { Target } from "../graph/executor.js";
import { realizedStorage } from "../graph/live.js";
import { inputsOf, type Node } from "../graph/node.js";
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

const noNodes: readonly Node[] = [];

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
  const close = (node: Node, inputs: readonly Node[]): void => {
    if (node.op === "detach") {
      marks.set(node, marks.get(node.x)); // inputs come first
      return;
    }
    const form = forms.of(node);
    for (let i = 0; i < inputs.length; i++) builder.input(marks.get(inputs[i] as Node));
    const hash = builder.hash(form);
    const found = builder.find(hash, form);
    if (found < 0) {
      builder.close(node, form, hash);
      return;
    }
    builder.drop();
    marks.set(node, found);
  };

  // Depth first, inputs before users: no node that is entered is behind itself, so that it has no number until it is closed.
  const nodes: Node[] = [];
  const inputs: (readonly Node[])[] = [];
  const next: number[] = [];
  let closedCount = 0;
  const enter = (node: Node): void => {
    const storage = realizedStorage(node);
    const its = storage ? noNodes : inputsOf(node);
    if (its.length > 0) {
      nodes.push(node);
      inputs.push(its);
      next.push(0);
      return;
    }
    closedCount++;
    if (storage) leaf(node, storage);
    else close(node, its);
  };
  for (const { value } of targets) {
    if (marks.get(value) < 0) enter(value);
    while (nodes.length > 0) {
      const top = nodes.length - 1;
      const its = inputs[top] as readonly Node[];
      const at = next[top] as number;
      if (at < its.length) {
        next[top] = at + 1;
        const input = its[at] as Node;
        if (marks.get(input) < 0) enter(input);
      } else {
        closedCount++;
        close(nodes.pop() as Node, its);
        inputs.pop();
        next.pop();
      }
    }
  }
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

/** Whether one plan serves both. */
export function areAlike(a: Structure, b: Structure): boolean {
  return a.hash === b.hash && a.forms === b.forms && a.words.every((list, i) => areEqual(list, b.words[i] as Int32Array)); // as many lists
}

function areEqual(a: Int32Array, b: Int32Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
