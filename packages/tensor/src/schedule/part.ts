import type { Node } from "../graph/node.js";
import type { NumberedGraph } from "../graph/numbered.js";
import { codeOf, hashOf } from "../graph/words.js";
import type { SingleKernel, Slot, StridedView } from "../kernels/kernel.js";
import { type Bound, bind, boundOf, type Template } from "../kernels/template.js";
import type { DType } from "../tensor/dtype.js";
import { work } from "./work.js";

/** What a kernel computes: the nodes behind one that is stored, down to those that lie in memory. */
export interface Part {
  /** Equal for parts that are equal but for the slots that they read and write: the first `length` of these, until the next part is found. */
  readonly words: readonly number[];
  readonly length: number;
  /** The numbers of the nodes that the kernel computes, the stored one first. */
  readonly nodes: readonly number[];
  /** The slots that it may touch, its result's first. */
  readonly slots: readonly Slot[];
}

/** In the words of a part: a node that came before, and one that lies in memory. */
const [repeated, loaded] = [-1, -2];

/** The memory of a node, by its number; -1 for nodes that are computed in place. */
export type SlotOf = (number: number) => Slot;

/** Finds parts of one graph, one after another. */
export class Parts {
  /** For each node the part that it was last found in, and its number there. */
  readonly #foundIn: Int32Array;
  readonly #numbers: Int32Array;
  #count = 0;
  /** The words of the part that was found last, in memory that serves all. */
  readonly #words: number[] = [];

  constructor(
    readonly graph: NumberedGraph,
    readonly slotOf: SlotOf,
    readonly dtypeOf: (slot: Slot) => DType,
    /** Slots that a kernel touches at most. */
    readonly maxBindings: number,
  ) {
    this.#foundIn = new Int32Array(graph.count);
    this.#numbers = new Int32Array(graph.count);
  }

  /** The part behind a node that is stored in `slot`. */
  of(root: number, slot: Slot): Part {
    const { nodes: all, forms, starts, inputs } = this.graph;
    const own = ++this.#count;
    const words = this.#words;
    words[0] = Number.isFinite(this.maxBindings) ? this.maxBindings : 0;
    words[1] = codeOf(this.dtypeOf(slot));
    let length = 2;
    const nodes: number[] = [];
    const slots: Slot[] = [slot];
    const stack: number[] = [root];
    for (let number = stack.pop(); number !== undefined; number = stack.pop()) {
      if (this.#foundIn[number] === own) {
        words[length++] = repeated;
        words[length++] = this.#numbers[number] as number;
        continue;
      }
      const held = number === root ? -1 : this.slotOf(number);
      if (held >= 0) {
        let operand = slots.indexOf(held);
        if (operand < 0) operand = slots.push(held) - 1;
        const { dtype, shape } = all[number] as Node; // the graph's own number
        words[length++] = loaded;
        words[length++] = operand;
        words[length++] = codeOf(this.dtypeOf(held));
        words[length++] = codeOf(dtype);
        words[length++] = shape.length;
        for (let axis = 0; axis < shape.length; axis++) words[length++] = shape[axis] as number;
        continue;
      }
      this.#foundIn[number] = own;
      this.#numbers[number] = nodes.length;
      nodes.push(number);
      words[length++] = forms[number] as number;
      const start = starts[number] as number;
      for (let edge = (starts[number + 1] as number) - 1; edge >= start; edge--) stack.push(inputs[edge] as number);
    }
    work.nodes += nodes.length;
    return { words, length, nodes, slots };
  }
}

/** What became of a part: a kernel over some of its slots, or nodes of its graph that have to be stored first. */
export type Lowering<Kernel = Bound> = { readonly kernel: Kernel } | { readonly store: readonly number[] };

/** The same of all equal parts: a template over some of the part's slots, or which of the part's nodes have to be stored first. */
type Outcome = { readonly template: Template; readonly operands: readonly number[] } | { readonly store: readonly number[] };

interface Known {
  readonly words: readonly number[];
  readonly outcome: Outcome;
}

/** Parts that are remembered; beyond it all are forgotten, which costs time and nothing else. */
const maxParts = 8192;

/** What became of parts whose nodes are of the same forms, so that equal ones are lowered once. */
export class KnownParts {
  readonly #known = new Map<number, Known[]>();
  readonly #views = new Map<string, StridedView | null>();
  #count = 0;

  /** The strides of memory seen through the views that `key` describes, made by `make` once for each key; null where no strides describe them. */
  view(key: string, make: () => StridedView | null): StridedView | null {
    let view = this.#views.get(key);
    if (view !== undefined) return view;
    if (this.#views.size >= maxParts) this.#views.clear();
    this.#views.set(key, (view = make()));
    return view;
  }

  /** What `make` makes of a part, or has made of an equal one. */
  lowered(part: Part, dtypeOf: (slot: Slot) => DType, make: () => Lowering<SingleKernel>): Lowering {
    const hash = hashOf(part.words, 0, part.length);
    const list = this.#known.get(hash);
    const found = list?.find(({ words }) => areEqual(words, part));
    if (found) return again(found.outcome, part);
    const words = part.words.slice(0, part.length);
    work.lowered++;
    const made = make();
    const outcome = outcomeOf(made, part, dtypeOf);
    if (this.#count++ >= maxParts) {
      this.#known.clear();
      this.#count = 1;
    }
    const others = this.#known.get(hash);
    if (others) others.push({ words, outcome });
    else this.#known.set(hash, [{ words, outcome }]);
    return again(outcome, part);
  }
}

function outcomeOf(made: Lowering<SingleKernel>, part: Part, dtypeOf: (slot: Slot) => DType): Outcome {
  if ("store" in made) return { store: made.store.map((node) => part.nodes.indexOf(node)) };
  const { template, slots } = boundOf(made.kernel, dtypeOf);
  return { template, operands: slots.map((slot) => part.slots.indexOf(slot)) };
}

/** The outcome for a part that is equal but for its slots. */
function again(outcome: Outcome, { nodes, slots }: Part): Lowering {
  if ("store" in outcome) return { store: outcome.store.map((number) => nodes[number] as number) }; // equal parts have as many nodes and slots
  return {
    kernel: bind(
      outcome.template,
      outcome.operands.map((operand) => slots[operand] as Slot),
    ),
  };
}

function areEqual(known: readonly number[], { words, length }: Part): boolean {
  if (known.length !== length) return false;
  for (let i = 0; i < length; i++) if (known[i] !== words[i]) return false;
  return true;
}
