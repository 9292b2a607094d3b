import type { Target } from "../graph/executor.js";
import { liveInputs, realizedStorage } from "../graph/live.js";
import { inputsOf, type Node, topological } from "../graph/node.js";
import type { Storage } from "../graph/storage.js";
import { codeOf, hashOf, NodeTable } from "../graph/words.js";
import { work } from "./work.js";

/** What identifies a graph apart from which storages it reads and writes. */
export interface Structure {
  /** Equal, all together, for graphs that one plan can serve. */
  readonly words: readonly (Int32Array | Float64Array)[];
  readonly hash: number;
  /** The storages that the graph reads, in the order of first appearance. */
  readonly inputs: readonly Storage[];
  /** The nodes behind the targets, inputs before users. */
  readonly order: readonly Node[];
}

/** Describes the graph behind the targets; equal nodes are described once. */
export function structureOf(targets: readonly Target[]): Structure {
  const table = new NodeTable();
  const numbers = new Map<Node, number>();
  const storages = new Map<Storage, number>();
  const inputNumber = (storage: Storage): number => {
    const number = storages.get(storage) ?? storages.size;
    storages.set(storage, number);
    return number;
  };
  const order = topological(
    targets.map((target) => target.value),
    liveInputs,
  );
  work.nodes += order.length;
  for (const node of order) {
    const storage = realizedStorage(node);
    const number = storage
      ? table.leaf(node, inputNumber(storage))
      : table.number(
          node,
          inputsOf(node).map((input) => numbers.get(input) as number), // inputs come first
        );
    numbers.set(node, number);
  }
  const results = targets.flatMap(({ storage, value }) => [numbers.get(value) ?? 0, storages.get(storage) ?? -1, codeOf(storage.dtype)]);
  const words = [Float64Array.from(table.forms.words), Int32Array.from(table.nodes.words), Int32Array.from(results)];
  const hash = words.reduce((sum, list) => Math.imul(sum, 31) ^ hashOf(list), 0);
  return { words, hash, inputs: [...storages.keys()], order };
}

/** Whether one plan serves both. */
export function areAlike(a: Structure, b: Structure): boolean {
  return (
    a.hash === b.hash &&
    a.words.every((list, i) => {
      const other = b.words[i];
      return list.length === other?.length && (list as Float64Array).every((word: number, at: number) => word === other[at]);
    })
  );
}
