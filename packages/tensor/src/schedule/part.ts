import type { NumberedGraph } from "../graph/numbered.js";
import { codeOf, hashOf } from "../graph/words.js";
import type { SingleKernel, Slot } from "../kernels/kernel.js";
import { type Bound, bind, boundOf, type Template } from "../kernels/template.js";
import type { DType } from "../tensor/dtype.js";
import { work } from "./work.js";

/** What a kernel computes: the nodes behind one that is stored, down to those that lie in memory. */
export interface Part {
  /** Equal for parts that are equal but for the slots that they read and write. */
  readonly words: readonly number[];
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
    const { graph } = this;
    const own = ++this.#count;
    const words: number[] = [Number.isFinite(this.maxBindings) ? this.maxBindings : 0, codeOf(this.dtypeOf(slot))];
    const nodes: number[] = [];
    const slots: Slot[] = [slot];
    const stack: number[] = [root];
    for (let number = stack.pop(); number !== undefined; number = stack.pop()) {
      if (this.#foundIn[number] === own) {
        words.push(repeated, this.#numbers[number] as number);
        continue;
      }
      const held = number === root ? -1 : this.slotOf(number);
      if (held >= 0) {
        let operand = slots.indexOf(held);
        if (operand < 0) operand = slots.push(held) - 1;
        const { dtype, shape } = graph.node(number);
        words.push(loaded, operand, codeOf(this.dtypeOf(held)), codeOf(dtype), shape.length);
        for (let axis = 0; axis < shape.length; axis++) words.push(shape[axis] as number);
        continue;
      }
      this.#foundIn[number] = own;
      this.#numbers[number] = nodes.length;
      nodes.push(number);
      words.push(graph.forms[number] as number);
      for (let edge = (graph.starts[number + 1] as number) - 1; edge >= (graph.starts[number] as number); edge--)
        stack.push(graph.inputs[edge] as number);
    }
    work.nodes += nodes.length;
    return { words, nodes, slots };
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
  #count = 0;

  /** What `make` makes of a part, or has made of an equal one. */
  lowered(part: Part, dtypeOf: (slot: Slot) => DType, make: () => Lowering<SingleKernel>): Lowering {
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

function areEqual(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
