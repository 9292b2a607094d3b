import { inputsOf, type Node, topological } from "../graph/node.js";
import type { Storage } from "../graph/storage.js";
import type { AddedProduct, MatrixOperand, PlanSlot, SingleKernel, Slot, StridedView } from "../kernels/kernel.js";
import { readsOf, writesOf } from "../kernels/slots.js";
import { type DType, dtypeBytes } from "../tensor/dtype.js";
import { sizeOf, stridesOf } from "../tensor/shape.js";
import { type FindSlot, type Lowered, lowerBodies, lowerKernel, lowerUpdate } from "./lower.js";
import { isRepeating, loadOperand } from "./operands.js";
import { KnownParts, partOf } from "./part.js";
import { behindReshapes, behindViews, isFree, isUpdate, isView, ownInputs, partition, usersIn } from "./partition.js";
import { splitPoint } from "./split.js";
import { matrixView, stridedView } from "./views.js";

/** A slot before memory was planned: `binding` for storages from outside, null for what lives inside the plan. */
export interface DraftSlot {
  readonly dtype: DType;
  readonly elementCount: number;
  readonly binding: number | null;
}

/** Kernels in order over slots whose memory is not planned yet. */
export interface Draft {
  readonly kernels: SingleKernel[];
  readonly slots: DraftSlot[];
}

/** A result of the plan and where it goes: over the input of that binding, or to a fresh binding. */
export interface DraftTarget {
  readonly value: Node;
  readonly dtype: DType;
  readonly binding: number;
}

/** What is built for. */
export interface BuildOptions {
  /** Slots that a kernel may touch, where there is a limit. */
  readonly maxBindings?: number | undefined;
  /** Names of composites whose operands may be strided views. */
  readonly strided?: ReadonlySet<string> | undefined;
  /** Parts of earlier graphs, of which equal ones are not lowered again. */
  readonly known?: KnownParts;
}

/** Turns a canonical graph into kernels. */
export function buildKernels(targets: readonly DraftTarget[], inputs: readonly Storage[], options: BuildOptions = {}): Draft {
  return new Builder(targets, inputs, options).build();
}

/** A slot with its contents seen as a tensor. */
type SlotView = StridedView & { readonly slot: Slot };

/** Kernels of one node, and the nodes that they compute. */
interface Built {
  readonly index: number;
  kernel: SingleKernel | null;
  readonly node: Node;
  readonly slot: Slot;
  nodes: readonly Node[];
}

/**
 * Builds a kernel for each stored node, in the graph's order. What a kernel turns out to need in memory is stored then and there, and the
 * kernels that have computed it inside are built again to read it.
 */
class Builder {
  readonly #slots: DraftSlot[];
  readonly #inputSlots: ReadonlyMap<Storage, Slot>;
  readonly #slotOf = new Map<Node, Slot>();
  /** Results that lie in memory in another order of axes than their own. */
  readonly #permuted = new Map<Node, SlotView>();
  /** Results whose binding nothing reads are computed straight into it. */
  readonly #direct = new Map<Node, number>();
  readonly #roots: ReadonlySet<Node>;
  readonly #order: readonly Node[];
  readonly #indexOf: ReadonlyMap<Node, number>;
  readonly #users: ReadonlyMap<Node, readonly Node[]>;
  readonly #strided: ReadonlySet<string>;
  readonly #maxBindings: number;
  readonly #known: KnownParts;
  readonly #built: Built[] = [];
  /** Nodes stored because a kernel needs it. */
  #forced = new Set<Node>();

  constructor(
    readonly targets: readonly DraftTarget[],
    readonly inputs: readonly Storage[],
    { maxBindings = Number.POSITIVE_INFINITY, strided = new Set(), known = new KnownParts() }: BuildOptions,
  ) {
    this.#slots = inputs.map(({ dtype, elementCount }, binding) => ({ dtype, elementCount, binding }));
    this.#inputSlots = new Map(inputs.map((storage, slot) => [storage, slot]));
    this.#order = topological(targets.map(({ value }) => value));
    this.#indexOf = new Map(this.#order.map((node, index) => [node, index]));
    this.#users = usersIn(this.#order);
    this.#roots = new Set(targets.map(({ value }) => behindReshapes(value)));
    this.#strided = strided;
    this.#maxBindings = maxBindings;
    this.#known = known;
    for (const { value, dtype, binding } of targets) {
      const node = behindReshapes(value);
      const isFresh = binding >= inputs.length;
      if (isFresh && node.op !== "buffer" && node.dtype === dtype && !this.#direct.has(node)) this.#direct.set(node, binding);
    }
  }

  build(): Draft {
    const stored = partition(
      this.targets.map(({ value }) => value),
      this.#order,
      this.#users,
      this.#strided,
    );
    for (const node of this.#order) if (stored.has(node)) this.#store(node);
    while (this.#forced.size > 0) this.#buildAgain();
    const kernels = [...this.#built].sort((a, b) => a.index - b.index).flatMap(({ kernel }) => kernel ?? []);
    this.#copyResults(kernels);
    return { kernels: withoutUnread(kernels, this.#slots), slots: this.#slots };
  }

  #newSlot(dtype: DType, elementCount: number, binding: number | null): Slot {
    return this.#slots.push({ dtype, elementCount, binding }) - 1;
  }

  readonly #dtypeOf = (slot: Slot): DType => (this.#slots[slot] as DraftSlot).dtype; // the plan's own number

  readonly #findSlot: FindSlot = (node) => {
    if (node.op === "buffer") return this.#inputSlots.get(node.storage) ?? null;
    const own = this.#slotOf.get(node);
    if (own !== undefined || node.op !== "reshape") return own ?? null;
    const behind = behindReshapes(node);
    return behind.op === "buffer" ? (this.#inputSlots.get(behind.storage) ?? null) : (this.#slotOf.get(behind) ?? null);
  };

  /** Gives a node memory, and a kernel that computes it. */
  #store(node: Node): void {
    if (this.#slotOf.has(node) || node.op === "buffer" || node.op === "output") return;
    if (node.op === "composite") {
      this.#composite(node);
      return;
    }
    const slot = this.#newSlot(node.dtype, sizeOf(node.shape), this.#direct.get(node) ?? null);
    this.#slotOf.set(node, slot);
    if (sizeOf(node.shape) === 0) return;
    const built: Built = { index: this.#indexOf.get(node) ?? 0, kernel: null, node, slot, nodes: [] };
    this.#built.push(built);
    this.#lower(built);
  }

  #lower(built: Built): void {
    const { node, slot } = built;
    for (;;) {
      const part = partOf(node, slot, this.#findSlot, this.#dtypeOf, this.#maxBindings);
      const lowered = this.#known.lowered(part, this.#dtypeOf, () => this.#lowered(node, slot));
      if ("kernel" in lowered) {
        built.kernel = lowered.kernel;
        built.nodes = part.nodes;
        return;
      }
      for (const missing of lowered.store) this.#force(missing, node);
    }
  }

  #force(node: Node, user: Node): void {
    if (this.#forced.has(node)) return;
    if (this.#slotOf.has(node)) throw new Error(`build: ${user.op} cannot read ${node.op}, which is stored.`);
    this.#forced.add(node);
    this.#store(node);
  }

  #lowered(node: Node, slot: Slot): Lowered {
    const lowered = lower(node, slot, this.#findSlot);
    if ("store" in lowered || node.op === "matmul" || node.op === "scatterAdd") return lowered;
    // One binding is for the result.
    const cut = splitPoint(node, this.#findSlot, this.#maxBindings - 1);
    return cut ? { store: [cut] } : lowered;
  }

  /** Kernels that compute inside what has been stored since then read it. */
  #buildAgain(): void {
    const forced = this.#forced;
    this.#forced = new Set();
    for (const built of [...this.#built]) {
      if (built.nodes.some((node) => node !== built.node && forced.has(node))) this.#lower(built);
    }
  }

  #composite(node: Node & { op: "composite" }): void {
    const isStrided = this.#strided.has(node.name);
    const users = (this.#users.get(node) ?? []).filter((user) => user.op === "output");
    const outputs = node.outputs.map((_, index) =>
      this.#output(
        node,
        index,
        users.find((user) => user.index === index),
      ),
    );
    const own = ownInputs(node);
    const inputs = node.inputs.map((input, i) => {
      for (;;) {
        const found = i >= own ? this.#whole(behindViews(input)) : isStrided ? this.#strideView(input) : this.#whole(input);
        if ("view" in found) return found.view;
        this.#force(found.store, node);
      }
    });
    const kernel: SingleKernel = {
      kind: "composite",
      name: node.name,
      attributes: node.attributes,
      inputs: inputs.map(({ slot }) => slot),
      inputShapes: node.inputs.map((input) => input.shape),
      outputs: outputs.map(({ slot }) => slot),
      outputShapes: node.outputs.map((output) => output.shape),
      ...(node.bodies && { bodies: lowerBodies(node.bodies, node.inputs.slice(own), this.#findSlot) }),
      ...(isStrided ? { views: { inputs: inputs.map(withoutSlot), outputs: outputs.map(withoutSlot) } } : {}),
    };
    this.#built.push({ index: this.#indexOf.get(node) ?? 0, kernel, node, slot: -1, nodes: [] });
  }

  /** The memory of a composite's result: in the order of axes in which it is read, where its last axis stays the last. */
  #output({ name, outputs }: Node & { op: "composite" }, index: number, user: Node | undefined): SlotView {
    const { dtype, shape } = outputs[index] as (typeof outputs)[number]; // one of its own
    const mayMove = user && this.#strided.has(name) && !this.#roots.has(user);
    const reader = mayMove ? permutedReader(this.#users.get(user) ?? [], this.#strided) : null;
    const holder = reader ?? user;
    const slot = this.#newSlot(dtype, sizeOf(shape), holder ? (this.#direct.get(holder) ?? null) : null);
    if (holder) this.#slotOf.set(holder, slot);
    const view = { slot, offset: 0, strides: stridesOf(shape) };
    if (!user || !reader) return view;
    const strides = stridesOf(reader.shape);
    const moved = { ...view, strides: shape.map((_, axis) => strides[reader.order.indexOf(axis)] ?? 0) };
    this.#permuted.set(user, moved);
    return moved;
  }

  #strideView(node: Node): { readonly view: SlotView } | { readonly store: Node } {
    const known = this.#permuted.get(node);
    if (known) return { view: known };
    const result = stridedView(node, this.#findSlot);
    if ("store" in result) return result;
    const { strides } = result.view;
    return (node.shape.at(-1) ?? 1) > 1 && strides.at(-1) !== 1 ? { store: node } : result;
  }

  #whole(node: Node): { readonly view: SlotView } | { readonly store: Node } {
    const slot = this.#findSlot(node);
    return slot === null ? { store: whole(node) } : { view: { slot, offset: 0, strides: stridesOf(node.shape) } };
  }

  /** Copies of results that are not computed where they belong. */
  #copyResults(kernels: SingleKernel[]): void {
    const written = new Set(this.targets.map((target) => target.binding));
    const before: SingleKernel[] = [];
    for (const { value, dtype, binding } of this.targets) {
      const node = behindReshapes(value);
      if (this.#direct.get(node) === binding) continue;
      let from = this.#findSlot(node);
      if (from === null) throw new Error(`build: a result of ${node.op} has no memory.`);
      const count = sizeOf(node.shape);
      const bytes = count * dtypeBytes[dtype];
      if (node.op === "buffer" && written.has(from)) {
        // Its old contents are wanted, but another result replaces them: keep a copy from before.
        const kept = this.#newSlot(dtype, count, null);
        before.push({ kind: "copy", bytes, from, to: kept });
        from = kept;
      }
      const to = binding < this.inputs.length ? binding : this.#newSlot(dtype, count, binding);
      if (from !== to && count > 0) kernels.push({ kind: "copy", bytes, from, to });
    }
    for (const kernel of [...before, ...kernels.splice(0)]) kernels.push(kernel);
  }
}

/** Where the elements lie, whatever the slot: the same for kernels that are equal but for their slots. */
function withoutSlot({ offset, strides }: SlotView): StridedView {
  return { offset, strides };
}

/** The kernels without those of which nothing reads a result. */
function withoutUnread(kernels: readonly SingleKernel[], slots: readonly DraftSlot[]): SingleKernel[] {
  const read = new Set<Slot>();
  const kept: SingleKernel[] = [];
  for (let i = kernels.length - 1; i >= 0; i--) {
    const kernel = kernels[i] as SingleKernel;
    if (!writesOf(kernel).some((slot) => read.has(slot) || slots[slot]?.binding !== null)) continue;
    for (const slot of readsOf(kernel)) read.add(slot);
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

/** What has to be stored so that a node lies whole in memory. */
function whole(node: Node): Node {
  return isView(node) ? node : behindReshapes(node);
}

/** The kernel of a node other than a composite, or what has to be stored first. */
function lower(node: Node, slot: Slot, findSlot: FindSlot): Lowered {
  if (node.op === "matmul") return lowerProduct(node, slot, findSlot);
  if (node.op === "scatterAdd") {
    const [rows = 0, width = 0] = node.shape;
    const [indices, updates] = [findSlot(node.indices), findSlot(node.updates)];
    if (indices === null) return { store: [whole(node.indices)] };
    if (updates === null) return { store: [whole(node.updates)] };
    return { kernel: { kind: "scatterAdd", rows, width, count: node.indices.shape[0] ?? 0, indices, updates, out: slot } };
  }
  if (isUpdate(node)) {
    const held = findSlot(node.x);
    return held === null ? { store: [whole(node.x)] } : lowerUpdate(node, slot, held, findSlot, inputsOf);
  }
  return lowerKernel(node, slot, (other) => (other === node ? null : findSlot(other)), inputsOf);
}

function lowerProduct(node: Node & { op: "matmul" }, slot: Slot, findSlot: FindSlot): Lowered {
  const [m = 1] = node.a.shape.slice(-2);
  const n = node.shape[node.shape.length - 1] ?? 1;
  const products: AddedProduct[] = [];
  for (const product of [{ a: node.a, b: node.b, factor: 1 }, ...(node.plus ?? [])]) {
    const [a, b] = [lowerFactor(product.a, findSlot), lowerFactor(product.b, findSlot)];
    if ("store" in a) return a;
    if ("store" in b) return b;
    products.push({ k: product.a.shape.at(-1) ?? 1, a: a.operand, b: b.operand, factor: product.factor });
  }
  const [first, ...plus] = products;
  if (!first) throw new Error("lower: a product without operands.");
  const { k, a, b } = first;
  return {
    kernel: { kind: "matmul", batch: node.shape.slice(0, -2), m, n, k, a, b, out: slot, ...(plus.length > 0 && { plus }) },
  };
}

/** An operand as strides over memory, else as an expression where what is behind its views is not stored, or repeated by them. */
function lowerFactor(operand: Node, findSlot: FindSlot): { readonly operand: MatrixOperand } | { readonly store: readonly Node[] } {
  const result = matrixView(operand, findSlot);
  if ("view" in result) return { operand: result.view };
  const root = behindViews(operand);
  const isComputed = findSlot(root) === null ? !isFree(root) : isRepeating(operand);
  return isComputed ? loadOperand(operand, findSlot) : { store: [result.store] };
}

/** Slots as the backends see them, once every inner slot has its place. */
export function finishSlots(slots: readonly DraftSlot[], offsets: ReadonlyMap<Slot, number>): PlanSlot[] {
  return slots.map(({ dtype, elementCount, binding }, slot) => {
    const bytes = elementCount * dtypeBytes[dtype];
    return binding === null
      ? { kind: "arena", dtype, elementCount, bytes, offset: offsets.get(slot) ?? 0 }
      : { kind: "bound", dtype, elementCount, bytes, binding };
  });
}
