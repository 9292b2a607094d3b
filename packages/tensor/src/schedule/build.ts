import type { Node } from "../graph/node.js";
import type { NumberedGraph } from "../graph/numbered.js";
import type { Storage } from "../graph/storage.js";
import { codeOf } from "../graph/words.js";
import type { SingleKernel, Slot, StridedView } from "../kernels/kernel.js";
import { type Bound, bind, boundOf, type Template } from "../kernels/template.js";
import { type DType, dtypeBytes } from "../tensor/dtype.js";
import { type Shape, sizeOf, stridesOf } from "../tensor/shape.js";
import type { Draft, DraftSlot } from "./draft.js";
import { type FindSlot, lowerBodies } from "./lower.js";
import { lowerNode, whole } from "./lower-node.js";
import { KnownParts, type Lowering, Parts } from "./part.js";
import { behindViews, isView, numberBehindReshapes, ownInputs, partition } from "./partition.js";
import { splitPoint } from "./split.js";
import { stridedView } from "./views.js";

/** Where a result of the plan goes: over the input of that binding, or to a fresh binding. */
export interface DraftTarget {
  readonly dtype: DType;
  readonly binding: number;
}

/** What is built for. */
export interface BuildOptions {
  /** Slots that a kernel may touch, where there is a limit. */
  readonly maxBindings?: number | undefined;
  /** Names of composites whose operands may be strided views. */
  readonly strided?: ReadonlySet<string> | undefined;
  /** Parts of earlier graphs of the same forms, of which equal ones are not lowered again. */
  readonly known?: KnownParts;
}

/** Turns a canonical graph, whose roots are the targets' values, into kernels. */
export function buildKernels(
  graph: NumberedGraph,
  targets: readonly DraftTarget[],
  inputs: readonly Storage[],
  options: BuildOptions = {},
): Draft {
  return new Builder(graph, targets, inputs, options).build();
}

/** In the words of a kernel: that of a composite, unlike the number of bindings that parts begin with. */
const asComposite = -1;

/** A slot with its contents seen as a tensor. */
type SlotView = StridedView & { readonly slot: Slot };

const none: readonly number[] = [];

/** Kernels of one node, by its number, and the other nodes that they compute. */
interface Built {
  kernel: Bound | null;
  readonly node: number;
  readonly slot: Slot;
  nodes: readonly number[];
}

/**
 * Builds a kernel for each stored node, in the graph's order. What a kernel turns out to need in memory is stored then and there, and the
 * kernels that have computed it inside are built again to read it.
 */
class Builder {
  readonly #slots: DraftSlot[];
  /** The memory of each node; -1 where there is none. */
  readonly #slotOfNode: Int32Array;
  /** Results that lie in memory in another order of axes than their own. */
  readonly #permuted = new Map<Node, SlotView>();
  /** Results whose binding nothing reads are computed straight into it. */
  readonly #direct = new Map<number, number>();
  /** Behind reshapes, one for each target. */
  readonly #results: readonly number[];
  readonly #isResult: ReadonlySet<number>;
  readonly #strided: ReadonlySet<string>;
  readonly #maxBindings: number;
  readonly #known: KnownParts;
  readonly #built: Built[] = [];
  /** Nodes stored because a kernel needs it. */
  #forced = new Set<number>();
  readonly #parts: Parts;

  constructor(
    readonly graph: NumberedGraph,
    readonly targets: readonly DraftTarget[],
    readonly inputs: readonly Storage[],
    { maxBindings = Number.POSITIVE_INFINITY, strided = new Set(), known = new KnownParts() }: BuildOptions,
  ) {
    this.#slots = inputs.map(({ dtype, elementCount }, binding) => ({ dtype, elementCount, binding }));
    const inputSlots = new Map(inputs.map((storage, slot) => [storage, slot]));
    this.#slotOfNode = new Int32Array(graph.count).fill(-1);
    const { nodes } = graph;
    for (let number = 0; number < nodes.length; number++) {
      const node = nodes[number] as Node; // within bounds
      if (node.op === "buffer") this.#slotOfNode[number] = inputSlots.get(node.storage) ?? -1;
    }
    this.#results = graph.roots.map((root) => numberBehindReshapes(graph, root));
    this.#isResult = new Set(this.#results);
    this.#strided = strided;
    this.#maxBindings = maxBindings;
    this.#known = known;
    this.#parts = new Parts(graph, this.#slotOf, this.#dtypeOf, maxBindings);
    for (const [i, { dtype, binding }] of targets.entries()) {
      const number = this.#results[i] as number; // one for each target
      const node = graph.node(number);
      const isFresh = binding >= inputs.length;
      if (isFresh && node.op !== "buffer" && node.dtype === dtype && !this.#direct.has(number)) this.#direct.set(number, binding);
    }
  }

  build(): Draft {
    const stored = partition(this.graph, this.#strided);
    for (let i = 0; i < stored.length; i++) if (stored[i]) this.#store(i);
    while (this.#forced.size > 0) this.#buildAgain();
    const kernels: Bound[] = [];
    for (const { kernel } of inOrder(this.#built)) if (kernel) kernels.push(kernel);
    this.#copyResults(kernels);
    return { kernels: withoutUnread(kernels, this.#slots), slots: this.#slots };
  }

  #newSlot(dtype: DType, elementCount: number, binding: number | null): Slot {
    return this.#slots.push({ dtype, elementCount, binding }) - 1;
  }

  readonly #dtypeOf = (slot: Slot): DType => (this.#slots[slot] as DraftSlot).dtype; // the plan's own number

  /** The memory of a node, or of what it reshapes; -1 where there is none. */
  readonly #slotOf = (number: number): Slot => {
    const own = this.#slotOfNode[number] as number;
    if (own >= 0 || (this.graph.nodes[number] as Node).op !== "reshape") return own;
    return this.#slotOfNode[numberBehindReshapes(this.graph, number)] as number;
  };

  readonly #findSlot: FindSlot = (node) => {
    const number = this.graph.numberOf(node);
    // Nodes of bodies are in no graph.
    const slot = number === undefined ? -1 : this.#slotOf(number);
    return slot < 0 ? null : slot;
  };

  #numberOf(node: Node): number {
    return this.graph.numberOf(node) as number; // of this graph
  }

  /** Gives a node memory, and a kernel that computes it. */
  #store(number: number): void {
    const node = this.graph.node(number);
    if ((this.#slotOfNode[number] as number) >= 0 || node.op === "buffer" || node.op === "output") return;
    if (node.op === "composite") {
      this.#composite(number, node);
      return;
    }
    const slot = this.#newSlot(node.dtype, sizeOf(node.shape), this.#direct.get(number) ?? null);
    this.#slotOfNode[number] = slot;
    if (sizeOf(node.shape) === 0) return;
    const built: Built = { kernel: null, node: number, slot, nodes: none };
    this.#built.push(built);
    this.#lower(built);
  }

  #lower(built: Built): void {
    const { node, slot } = built;
    for (;;) {
      const part = this.#parts.of(node, slot);
      const lowered = this.#known.lowered(part, this.#dtypeOf, () => this.#lowered(node, slot));
      if ("kernel" in lowered) {
        built.kernel = lowered.kernel;
        built.nodes = part.nodes.length > 1 ? part.nodes.slice(1) : none;
        return;
      }
      for (const missing of lowered.store) this.#force(missing, node);
    }
  }

  #force(number: number, user: number): void {
    if (this.#forced.has(number)) return;
    if ((this.#slotOfNode[number] as number) >= 0)
      throw new Error(`build: ${this.graph.node(user).op} cannot read ${this.graph.node(number).op}, which is stored.`);
    this.#forced.add(number);
    this.#store(number);
  }

  #lowered(number: number, slot: Slot): Lowering<SingleKernel> {
    const node = this.graph.node(number);
    const lowered = lowerNode(node, slot, this.#findSlot);
    if ("store" in lowered) return { store: lowered.store.map((missing) => this.#numberOf(missing)) };
    if (node.op === "matmul" || node.op === "scatterAdd") return lowered;
    // One binding is for the result.
    const cut = splitPoint(node, this.#findSlot, this.#maxBindings - 1);
    return cut ? { store: [this.#numberOf(cut)] } : lowered;
  }

  /** Kernels that compute inside what has been stored since then read it. */
  #buildAgain(): void {
    const forced = this.#forced;
    this.#forced = new Set();
    for (const built of [...this.#built]) {
      if (built.nodes.some((node) => forced.has(node))) this.#lower(built);
    }
  }

  /** The nodes that use a node, once for each time. */
  #usersOf(number: number): number[] {
    const { starts, users } = this.graph.users;
    return [...users.subarray(starts[number], starts[number + 1])];
  }

  #composite(number: number, node: Node & { op: "composite" }): void {
    const isStrided = this.#strided.has(node.name);
    const users = this.#usersOf(number);
    const isOutput = (user: number, index: number): boolean => {
      const output = this.graph.node(user);
      return output.op === "output" && output.index === index;
    };
    const outputs = node.outputs.map((_, index) =>
      this.#output(
        node,
        index,
        users.find((user) => isOutput(user, index)),
      ),
    );
    const own = ownInputs(node);
    const inputs = node.inputs.map((input, i) => {
      for (;;) {
        const found = i >= own ? this.#whole(behindViews(input)) : isStrided ? this.#strideView(input) : this.#whole(input);
        if ("view" in found) return found.view;
        this.#force(this.#numberOf(found.store), number);
      }
    });
    const kernel = this.#boundComposite(number, inputs, outputs, () => ({
      kind: "composite",
      name: node.name,
      attributes: node.attributes,
      inputs: inputs.map(({ slot }) => slot),
      inputShapes: node.inputs.map((input) => input.shape),
      outputs: outputs.map(({ slot }) => slot),
      outputShapes: node.outputs.map((output) => output.shape),
      ...(node.bodies && { bodies: lowerBodies(node.bodies, node.inputs.slice(own), this.#findSlot) }),
      ...(isStrided ? { views: { inputs: inputs.map(withoutSlot), outputs: outputs.map(withoutSlot) } } : {}),
    }));
    this.#built.push({ kernel, node: number, slot: -1, nodes: none });
  }

  /** The kernel of a composite over views of memory, which `make` makes unless an equal one is known. */
  #boundComposite(number: number, inputs: readonly SlotView[], outputs: readonly SlotView[], make: () => SingleKernel): Bound {
    const node = this.graph.node(number) as Node & { readonly op: "composite" };
    const words = [asComposite, this.graph.forms[number] as number, Number(this.#strided.has(node.name))];
    const slots: Slot[] = [];
    const push = ({ slot, offset, strides }: SlotView, shape: Shape): void => {
      let operand = slots.indexOf(slot);
      if (operand < 0) operand = slots.push(slot) - 1;
      words.push(operand, codeOf(this.#dtypeOf(slot)), offset, strides.length, ...strides, shape.length, ...shape);
    };
    for (const [i, view] of inputs.entries()) push(view, (node.inputs[i] as Node).shape);
    for (const [i, view] of outputs.entries()) push(view, (node.outputs[i] as (typeof node.outputs)[number]).shape);
    // Bodies read what they captured through its views.
    for (let i = ownInputs(node); i < inputs.length; i++) {
      let view = this.graph.input(number, i);
      for (; isView(this.graph.node(view)); view = this.graph.input(view)) words.push(this.graph.forms[view] as number);
      words.push(asComposite);
    }
    const lowered = this.#known.lowered({ words, length: words.length, nodes: [], slots }, this.#dtypeOf, () => ({ kernel: make() }));
    if ("store" in lowered) throw new Error("build: a composite waits for what is there.");
    return lowered.kernel;
  }

  /** The memory of a composite's result: in the order of axes in which it is read, where its last axis stays the last. */
  #output({ name, outputs }: Node & { op: "composite" }, index: number, user: number | undefined): SlotView {
    const { dtype, shape } = outputs[index] as (typeof outputs)[number]; // one of its own
    const mayMove = user !== undefined && this.#strided.has(name) && !this.#isResult.has(user);
    const readers = mayMove ? this.#usersOf(user).map((reader) => this.graph.node(reader)) : [];
    const reader = permutedReader(readers, this.#strided);
    const holder = reader ? this.#numberOf(reader) : user;
    const slot = this.#newSlot(dtype, sizeOf(shape), holder === undefined ? null : (this.#direct.get(holder) ?? null));
    if (holder !== undefined) this.#slotOfNode[holder] = slot;
    const view = { slot, offset: 0, strides: stridesOf(shape) };
    if (user === undefined || !reader) return view;
    const strides = stridesOf(reader.shape);
    const moved = { ...view, strides: shape.map((_, axis) => strides[reader.order.indexOf(axis)] ?? 0) };
    this.#permuted.set(this.graph.node(user), moved);
    return moved;
  }

  #strideView(node: Node): { readonly view: SlotView } | { readonly store: Node } {
    const known = this.#permuted.get(node);
    if (known) return { view: known };
    const { nodes, forms } = this.graph;
    let number = this.#numberOf(node);
    const words: number[] = [];
    while (this.#slotOf(number) < 0) {
      if (!isView(nodes[number] as Node)) return { store: node };
      words.push(forms[number] as number);
      number = this.graph.input(number);
    }
    const view = this.#known.view(`${words.join()};${(nodes[number] as Node).shape.join()}`, () => {
      const result = stridedView(node, this.#findSlot);
      if ("store" in result) return null;
      const { strides } = result.view;
      return (node.shape.at(-1) ?? 1) > 1 && strides.at(-1) !== 1 ? null : withoutSlot(result.view);
    });
    return view ? { view: { slot: this.#slotOf(number), offset: view.offset, strides: [...view.strides] } } : { store: node };
  }

  #whole(node: Node): { readonly view: SlotView } | { readonly store: Node } {
    const slot = this.#findSlot(node);
    return slot === null ? { store: whole(node) } : { view: { slot, offset: 0, strides: stridesOf(node.shape) } };
  }

  /** Copies of results that are not computed where they belong. */
  #copyResults(kernels: Bound[]): void {
    const written = new Set(this.targets.map((target) => target.binding));
    const before: Bound[] = [];
    const templates = new Map<string, Template>();
    const copy = (bytes: number, from: Slot, to: Slot): Bound => {
      const key = `${bytes} ${this.#dtypeOf(from)} ${this.#dtypeOf(to)}`;
      const template = templates.get(key);
      if (template) return bind(template, [from, to]);
      const bound = boundOf({ kind: "copy", bytes, from, to }, this.#dtypeOf);
      templates.set(key, bound.template);
      return bound;
    };
    for (const [i, { dtype, binding }] of this.targets.entries()) {
      const number = this.#results[i] as number; // one for each target
      const node = this.graph.node(number);
      if (this.#direct.get(number) === binding) continue;
      let from = this.#slotOf(number);
      if (from < 0) throw new Error(`build: a result of ${node.op} has no memory.`);
      const count = sizeOf(node.shape);
      const bytes = count * dtypeBytes[dtype];
      if (node.op === "buffer" && written.has(from)) {
        // Its old contents are wanted, but another result replaces them: keep a copy from before.
        const kept = this.#newSlot(dtype, count, null);
        before.push(copy(bytes, from, kept));
        from = kept;
      }
      const to = binding < this.inputs.length ? binding : this.#newSlot(dtype, count, binding);
      if (from !== to && count > 0) kernels.push(copy(bytes, from, to));
    }
    for (const kernel of [...before, ...kernels.splice(0)]) kernels.push(kernel);
  }
}

/** Kernels by the numbers of their nodes; they are in order but for those that were stored late. */
function inOrder(built: readonly Built[]): readonly Built[] {
  for (let i = 1; i < built.length; i++) {
    const [before, after] = [built[i - 1], built[i]];
    if (before && after && before.node > after.node) return [...built].sort((a, b) => a.node - b.node);
  }
  return built;
}

/** Where the elements lie, whatever the slot: the same for kernels that are equal but for their slots. */
function withoutSlot({ offset, strides }: StridedView): StridedView {
  return { offset, strides };
}

/** The kernels without those of which nothing reads a result. */
function withoutUnread(kernels: readonly Bound[], slots: readonly DraftSlot[]): Bound[] {
  const read = new Uint8Array(slots.length);
  const kept: Bound[] = [];
  for (let i = kernels.length - 1; i >= 0; i--) {
    const kernel = kernels[i] as Bound;
    if (!kernel.writes.some((slot) => read[slot] === 1 || slots[slot]?.binding !== null)) continue;
    for (const slot of kernel.reads) read[slot] = 1;
    kept.push(kernel);
  }
  return kept.reverse();
}

/** The one permutation through which a result is read, but by composites that take strided views; it keeps the last axis. Null if none. */
function permutedReader(users: readonly Node[], strided: ReadonlySet<string>): (Node & { readonly op: "permute" }) | null {
  const others = new Set(users.filter((user) => !(user.op === "composite" && strided.has(user.name))));
  const [reader] = others;
  if (others.size !== 1 || reader?.op !== "permute") return null;
  return reader.order.at(-1) === reader.order.length - 1 ? reader : null;
}
