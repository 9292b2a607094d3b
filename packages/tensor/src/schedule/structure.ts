import type { Target } from "../graph/executor.js";
import { realizedStorage } from "../graph/live.js";
import { inputsOf, type Node } from "../graph/node.js";
import { GraphBuilder, type NumberedGraph } from "../graph/numbered.js";
import type { Storage } from "../graph/storage.js";
import { codeOf, type Forms, hashOf, WordLists } from "../graph/words.js";
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
  const table = new WordLists();
  const numbers = new Map<Node, number>();
  const inputNumbers = new Map<Storage, number>();
  const storages = new Map<number, Storage>();
  const builder = new GraphBuilder();

  const close = (node: Node, inputs: readonly Node[], storage: Storage | null): void => {
    if (node.op === "detach" && !storage) {
      numbers.set(node, numbers.get(node.x) as number); // inputs come first
      return;
    }
    const form = storage ? forms.ofLeaf(node) : forms.of(node);
    table.words.push(form);
    if (storage) {
      let number = inputNumbers.get(storage);
      if (number === undefined) inputNumbers.set(storage, (number = inputNumbers.size));
      table.words.push(number);
    } else for (let i = 0; i < inputs.length; i++) table.words.push(numbers.get(inputs[i] as Node) as number); // inputs come first
    const number = table.close();
    numbers.set(node, number);
    if (number < builder.count) return;
    if (storage) storages.set(number, storage);
    else for (let i = 0; i < inputs.length; i++) builder.input(numbers.get(inputs[i] as Node) as number);
    builder.close(node, form);
  };

  // Depth first, inputs before users: no node that is entered is behind itself, so that it has no number until it is closed.
  const nodes: Node[] = [];
  const inputs: (readonly Node[])[] = [];
  const next: number[] = [];
  const enter = (node: Node): void => {
    if (numbers.has(node)) return;
    const storage = realizedStorage(node);
    const its = storage ? noNodes : inputsOf(node);
    if (its.length === 0) {
      close(node, its, storage);
      return;
    }
    nodes.push(node);
    inputs.push(its);
    next.push(0);
  };
  for (const { value } of targets) {
    enter(value);
    while (nodes.length > 0) {
      const top = nodes.length - 1;
      const its = inputs[top] as readonly Node[];
      const at = next[top] as number;
      if (at < its.length) {
        next[top] = at + 1;
        enter(its[at] as Node);
      } else {
        close(nodes.pop() as Node, its, null);
        inputs.pop();
        next.pop();
      }
    }
  }
  work.nodes += numbers.size;
  const roots = targets.map(({ value }) => numbers.get(value) as number);
  const results = targets.flatMap(({ storage }, i) => [roots[i] as number, inputNumbers.get(storage) ?? -1, codeOf(storage.dtype)]);
  const words = [new Int32Array(table.words), new Int32Array(results)];
  const hash = words.reduce((sum, list) => Math.imul(sum, 31) ^ hashOf(list), 0);
  return { words, forms, hash, graph: builder.all(roots), storages, inputs: [...inputNumbers.keys()] };
}

/** Whether one plan serves both. */
export function areAlike(a: Structure, b: Structure): boolean {
  return (
    a.hash === b.hash &&
    a.forms === b.forms &&
    a.words.every((list, i) => {
      const other = b.words[i];
      return list.length === other?.length && list.every((word, at) => word === other[at]);
    })
  );
}
