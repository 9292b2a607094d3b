import { inputsOf, type Node } from "../graph/node.js";
import { codeOf, hashOf, pushNode } from "../graph/words.js";
import type { Slot } from "../kernels/kernel.js";
import { bind, boundOf, type Template } from "../kernels/template.js";
import type { DType } from "../tensor/dtype.js";
import type { FindSlot, Lowered } from "./lower.js";
import { work } from "./work.js";

/** What a kernel computes: the nodes behind one that is stored, down to those that lie in memory. */
export interface Part {
  /** Equal for parts that are equal but for the slots that they read and write. */
  readonly words: readonly number[];
  /** The nodes that the kernel computes, the stored one first. */
  readonly nodes: readonly Node[];
  /** The slots that it may touch, its result's first. */
  readonly slots: readonly Slot[];
}

/** In the words of a part: a node that came before, and one that lies in memory. */
const [repeated, loaded] = [-1, -2];

/** The part of the graph behind `root`, which is stored in `slot` by a kernel that touches at most `maxBindings` slots. */
export function partOf(root: Node, slot: Slot, findSlot: FindSlot, dtypeOf: (slot: Slot) => DType, maxBindings: number): Part {
  const words: number[] = [maxBindings, codeOf(dtypeOf(slot))];
  const nodes: Node[] = [];
  const numbers = new Map<Node, number>();
  const operands = new Map<Slot, number>([[slot, 0]]);
  const stack: Node[] = [root];
  for (let node = stack.pop(); node; node = stack.pop()) {
    const number = numbers.get(node);
    if (number !== undefined) {
      words.push(repeated, number);
      continue;
    }
    const held = node === root ? null : findSlot(node);
    if (held !== null) {
      const operand = operands.get(held) ?? operands.size;
      operands.set(held, operand);
      words.push(loaded, operand, codeOf(dtypeOf(held)), codeOf(node.dtype), node.shape.length);
      for (const size of node.shape) words.push(size);
      continue;
    }
    numbers.set(node, nodes.length);
    nodes.push(node);
    pushNode(words, node);
    const inputs = inputsOf(node);
    for (let i = inputs.length - 1; i >= 0; i--) stack.push(inputs[i] as Node);
  }
  work.nodes += nodes.length;
  return { words, nodes, slots: [...operands.keys()] };
}

/** What became of a part: a kernel of a template over some of the part's slots; or the numbers of the nodes that have to be stored first. */
type Outcome = { readonly template: Template; readonly operands: readonly number[] } | { readonly store: readonly number[] };

interface Known {
  readonly words: readonly number[];
  readonly outcome: Outcome;
}

/** Parts that are remembered; beyond it all are forgotten, which costs time and nothing else. */
const maxParts = 8192;

/** What became of parts, so that equal ones are lowered once. */
export class KnownParts {
  readonly #known = new Map<number, Known[]>();
  #count = 0;

  /** What `make` makes of a part, or has made of an equal one. */
  lowered(part: Part, dtypeOf: (slot: Slot) => DType, make: () => Lowered): Lowered {
    const hash = hashOf(part.words);
    const known = this.#known.get(hash)?.find(({ words }) => areEqual(words, part.words));
    if (known) return again(known.outcome, part);
    work.lowered++;
    const made = make();
    const outcome = outcomeOf(made, part, dtypeOf);
    if (this.#count++ >= maxParts) {
      this.#known.clear();
      this.#count = 1;
    }
    const list = this.#known.get(hash);
    if (list) list.push({ words: part.words, outcome });
    else this.#known.set(hash, [{ words: part.words, outcome }]);
    return again(outcome, part);
  }
}

function outcomeOf(made: Lowered, part: Part, dtypeOf: (slot: Slot) => DType): Outcome {
  if ("store" in made) return { store: made.store.map((node) => part.nodes.indexOf(node)) };
  const { template, slots } = boundOf(made.kernel, dtypeOf);
  return { template, operands: slots.map((slot) => part.slots.indexOf(slot)) };
}

/** The outcome for a part that is equal but for its slots. */
function again(outcome: Outcome, { nodes, slots }: Part): Lowered {
  if ("store" in outcome) return { store: outcome.store.map((number) => nodes[number] as Node) }; // equal parts have as many nodes and slots
  return {
    kernel: bind(
      outcome.template,
      outcome.operands.map((operand) => slots[operand] as Slot),
    ),
  };
}

function areEqual(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
