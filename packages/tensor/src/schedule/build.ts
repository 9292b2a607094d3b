import { inputsOf, type Node, topological } from "../graph/node.js";
import type { Kernel, PlanSlot, Slot, StridedView } from "../kernels/kernel.js";
import { type DType, dtypeBytes } from "../tensor/dtype.js";
import { sizeOf, stridesOf } from "../tensor/shape.js";
import type { Storage } from "../tensor/storage.js";
import { type FindSlot, lowerKernel, lowerUpdate, Unfusable } from "./lower.js";
import { loadOperand } from "./operands.js";
import { behindReshapes, behindViews, isFree, isUpdate, isView, partition } from "./partition.js";
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
  readonly kernels: Kernel[];
  readonly slots: DraftSlot[];
}

/** A result of the plan and where it goes: over the input of that binding, or to a fresh binding. */
export interface DraftTarget {
  readonly value: Node;
  readonly dtype: DType;
  readonly binding: number;
}

/** Signals that the partition has to give a node memory. */
class NeedsStoring extends Error {
  constructor(readonly node: Node) {
    super("needs storing");
  }
}

/** Turns a canonical graph into kernels; grows the set of stored nodes, by all that one attempt finds, until every kernel can be built. */
export function buildKernels(
  targets: readonly DraftTarget[],
  inputs: readonly Storage[],
  maxBindings: number = Number.POSITIVE_INFINITY,
  strided: ReadonlySet<string> = new Set(),
): Draft {
  const roots = targets.map((target) => target.value);
  const order = topological(roots);
  const users = usersIn(order);
  const forced = new Set<Node>();
  for (;;) {
    const result = attempt(targets, inputs, order, users, partition(roots, order, users, forced, strided), maxBindings, strided);
    if ("kernels" in result) return result;
    for (const node of result) {
      if (forced.has(node)) throw new NeedsStoring(node);
      forced.add(node);
    }
  }
}

/** The nodes that use each node. */
function usersIn(order: readonly Node[]): Map<Node, Node[]> {
  const users = new Map<Node, Node[]>();
  for (const node of order) {
    for (const input of inputsOf(node)) {
      const list = users.get(input);
      if (list) list.push(node);
      else users.set(input, [node]);
    }
  }
  return users;
}

/** The kernels over what is stored, or the nodes that have to be stored as well. */
function attempt(
  targets: readonly DraftTarget[],
  inputs: readonly Storage[],
  order: readonly Node[],
  users: ReadonlyMap<Node, readonly Node[]>,
  stored: ReadonlySet<Node>,
  maxBindings: number,
  strided: ReadonlySet<string>,
): Draft | ReadonlySet<Node> {
  const kernels: Kernel[] = [];
  const slots: DraftSlot[] = inputs.map(({ dtype, elementCount }, binding) => ({ dtype, elementCount, binding }));
  const inputSlots = new Map(inputs.map((storage, slot) => [storage, slot]));
  const slotOf = new Map<Node, Slot>();
  const newSlot = (dtype: DType, elementCount: number, binding: number | null): Slot => slots.push({ dtype, elementCount, binding }) - 1;
  const findSlot: FindSlot = (node) => {
    if (node.op === "buffer") return inputSlots.get(node.storage) ?? null;
    const own = slotOf.get(node);
    if (own !== undefined) return own;
    return node.op === "reshape" ? findSlotBehind(node) : null;
  };
  const findSlotBehind = (node: Node): Slot | null => {
    const behind = behindReshapes(node);
    return behind.op === "buffer" ? (inputSlots.get(behind.storage) ?? null) : (slotOf.get(behind) ?? null);
  };
  const mustFind = (node: Node): Slot => {
    const slot = findSlot(node);
    if (slot === null) throw new NeedsStoring(isView(node) ? node : behindReshapes(node));
    return slot;
  };
  const written = new Set(targets.map((target) => target.binding));

  // Results whose binding nothing reads may be computed straight into it.
  const direct = new Map<Node, number>();
  for (const { value, dtype, binding } of targets) {
    const node = behindReshapes(value);
    const isFresh = binding >= inputs.length;
    if (isFresh && node.op !== "buffer" && node.dtype === dtype && !direct.has(node)) direct.set(node, binding);
  }

  const roots = new Set(targets.map(({ value }) => behindReshapes(value)));
  // Results that lie in memory in another order of axes than their own.
  const permuted = new Map<Node, StridedView & { readonly slot: Slot }>();
  const viewOf = (node: Node): StridedView & { readonly slot: Slot } => {
    const known = permuted.get(node);
    if (known) return known;
    const result = stridedView(node, findSlot);
    if ("store" in result) throw new NeedsStoring(result.store);
    const { strides } = result.view;
    if ((node.shape.at(-1) ?? 1) > 1 && strides.at(-1) !== 1) throw new NeedsStoring(node);
    return result.view;
  };

  const missing = new Set<Node>();
  // Goes on as if what is missing were stored, so that one attempt finds all of it.
  const assumingStored = (build: () => void): void => {
    for (;;) {
      try {
        build();
        return;
      } catch (error) {
        if (!(error instanceof NeedsStoring) || missing.has(error.node)) throw error;
        missing.add(error.node);
        slotOf.set(error.node, newSlot(error.node.dtype, sizeOf(error.node.shape), null));
      }
    }
  };

  for (const node of order) {
    if (!stored.has(node) || slotOf.has(node) || node.op === "buffer" || node.op === "output") continue;
    if (node.op === "composite") {
      const isStrided = strided.has(node.name);
      const used = (users.get(node) ?? []).filter((user) => user.op === "output");
      const outputs = node.outputs.map((output, index) => {
        const user = used.find((candidate) => candidate.index === index);
        const reader = user && isStrided && !roots.has(user) ? permutedReader(users.get(user) ?? [], strided) : null;
        const holder = reader ?? user;
        const slot = newSlot(output.dtype, sizeOf(output.shape), holder ? (direct.get(holder) ?? null) : null);
        if (holder) slotOf.set(holder, slot);
        const view = { slot, offset: 0, strides: stridesOf(output.shape) };
        if (!user || !reader) return view;
        const strides = stridesOf(reader.shape);
        const moved = { ...view, strides: output.shape.map((_, axis) => strides[reader.order.indexOf(axis)] ?? 0) };
        permuted.set(user, moved);
        return moved;
      });
      assumingStored(() => {
        const inputs = node.inputs.map((input) =>
          isStrided ? viewOf(input) : { slot: mustFind(input), offset: 0, strides: stridesOf(input.shape) },
        );
        kernels.push({
          kind: "composite",
          name: node.name,
          attributes: node.attributes,
          inputs: inputs.map(({ slot }) => slot),
          inputShapes: node.inputs.map((input) => input.shape),
          outputs: outputs.map(({ slot }) => slot),
          outputShapes: node.outputs.map((output) => output.shape),
          ...(isStrided ? { views: { inputs, outputs } } : {}),
        });
      });
      continue;
    }
    const count = sizeOf(node.shape);
    const slot = newSlot(node.dtype, count, direct.get(node) ?? null);
    slotOf.set(node, slot);
    if (count === 0) continue;
    assumingStored(() => {
      kernels.push(kernelOf(node, slot, findSlot, mustFind));
      // One binding is for the result.
      const cut = node.op === "matmul" || node.op === "scatterAdd" ? null : splitPoint(node, findSlot, maxBindings - 1);
      if (cut) throw new NeedsStoring(cut);
    });
  }

  for (const { value, dtype, binding } of targets) {
    const node = behindReshapes(value);
    if (direct.get(node) === binding) continue;
    assumingStored(() => {
      let from = mustFind(node);
      const count = sizeOf(node.shape);
      if (node.op === "buffer" && written.has(from)) {
        // Its old contents are wanted, but another result replaces them: keep a copy from before.
        const kept = newSlot(dtype, count, null);
        kernels.unshift({ kind: "copy", bytes: count * dtypeBytes[dtype], from, to: kept });
        from = kept;
      }
      const to = binding < inputs.length ? binding : newSlot(dtype, count, binding);
      if (from !== to && count > 0) kernels.push({ kind: "copy", bytes: count * dtypeBytes[dtype], from, to });
    });
  }
  return missing.size > 0 ? missing : { kernels, slots };
}

/** The one permutation through which a result is read, but by composites that take strided views; it keeps the last axis. Null if none. */
function permutedReader(users: readonly Node[], strided: ReadonlySet<string>): (Node & { readonly op: "permute" }) | null {
  const others = new Set(users.filter((user) => !(user.op === "composite" && strided.has(user.name))));
  const [reader] = others;
  if (others.size !== 1 || reader?.op !== "permute") return null;
  return reader.order.at(-1) === reader.order.length - 1 ? reader : null;
}

function kernelOf(node: Node, slot: Slot, findSlot: FindSlot, mustFind: (node: Node) => Slot): Kernel {
  if (node.op === "matmul") {
    const [m = 1, k = 1] = node.a.shape.slice(-2);
    const n = node.shape[node.shape.length - 1] ?? 1;
    const view = (operand: Node) => {
      const result = matrixView(operand, findSlot);
      if ("view" in result) return result.view;
      const root = behindViews(operand);
      if (isFree(root) || findSlot(root) !== null) throw new NeedsStoring(result.store);
      try {
        return loadOperand(operand, findSlot);
      } catch (error) {
        throw error instanceof Unfusable ? new NeedsStoring(error.node) : error;
      }
    };
    const [a, b] = [view(node.a), view(node.b)];
    const plus = node.plus?.map((product) => ({
      k: product.a.shape.at(-1) ?? 1,
      a: view(product.a),
      b: view(product.b),
      factor: product.factor,
    }));
    return {
      kind: "matmul",
      batch: node.shape.slice(0, -2),
      m,
      n,
      k,
      a,
      b,
      out: slot,
      ...(plus && { plus }),
    };
  }
  if (node.op === "scatterAdd") {
    const [rows = 0, width = 0] = node.shape;
    return {
      kind: "scatterAdd",
      rows,
      width,
      count: node.indices.shape[0] ?? 0,
      indices: mustFind(node.indices),
      updates: mustFind(node.updates),
      out: slot,
    };
  }
  try {
    if (isUpdate(node)) return lowerUpdate(node, slot, mustFind(node.x), findSlot, inputsOf);
    return lowerKernel(node, slot, (other) => (other === node ? null : findSlot(other)), inputsOf);
  } catch (error) {
    throw error instanceof Unfusable ? new NeedsStoring(error.node) : error;
  }
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
