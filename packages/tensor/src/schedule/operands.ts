import { inputsOf, type Node } from "../graph/node.js";
import type { NumberedGraph } from "../graph/numbered.js";
import { expressionsBelow } from "../kernels/expr.js";
import type { LoadOperand, Slot } from "../kernels/kernel.js";
import { dtypeBytes } from "../tensor/dtype.js";
import { sizeOf } from "../tensor/shape.js";
import { type FindSlot, lowerOperand } from "./lower.js";
import { behindViews, costly, hasOwnKernel, isFree, isNarrowing, isView, numberBehindViews } from "./partition.js";

/** An operand is computed as it is read where what it reads takes at most this share of the bytes that it would take. */
const mostShare = 0.6;
/**
 * And where it is made of at most so many nodes and memories: what is computed anew for each panel has to stay cheap, and programs bind few. Six are
 * a weight in 4 bits whose scales are quantised themselves, and leave two of the eight buffers that every WebGPU adapter binds.
 */
const mostNodes = 96;
const mostMemories = 6;
/** Whole matrices that are chosen by number are read where they lie by products of so few rows; more are worth a copy. */
const fewRows = 8;

/** What the operands of products come to, by numbers of nodes. */
export interface Operands {
  /** Operands (behind views) that are computed as they are read, and all nodes in them: none of them is stored for the sake of a product. */
  readonly computed: ReadonlySet<number>;
  /** Nodes that have memory of their own. */
  readonly stored: ReadonlySet<number>;
}

/**
 * Decides which operands of products are computed as they are read: those that expand what lies in memory, as a weight in blocks or the
 * patches of a convolution do, at little work an element. That they are shared changes nothing: stored, one would stay whole in memory from
 * its first product to its last. `forced` has 1 for nodes that have memory anyway.
 */
export function productOperands(graph: NumberedGraph, forced: Uint8Array): Operands {
  const computed = new Set<number>();
  const stored = new Set<number>();
  const known = new Set<number>();
  const numberOf = (node: Node): number => graph.numberOf(node) as number; // of this graph
  const { nodes } = graph;
  for (let i = 0; i < nodes.length; i++) {
    const { op, shape } = nodes[i] as Node; // within bounds
    if (op !== "matmul") continue;
    const rows = shape.at(-2) ?? 1;
    for (const input of graph.inputs.subarray(graph.starts[i], graph.starts[i + 1])) {
      const root = numberBehindViews(graph, input);
      if (known.has(root) || isFree(graph.node(root))) continue;
      known.add(root);
      const expansion = readsItsSize(graph, root, forced)
        ? null
        : expansionOf(graph.node(root), rows, (node) => forced[numberOf(node)] === 1);
      if (!expansion) {
        stored.add(root);
        continue;
      }
      for (const inner of expansion.nodes) computed.add(numberOf(inner));
      for (const cut of expansion.memories.keys()) if (!isFree(cut)) stored.add(numberOf(cut));
    }
  }
  for (const number of stored) computed.delete(number);
  return { computed, stored };
}

/** An operand as an expression over memories. */
interface Expansion {
  /** Nodes with memory, or to be given some, and how many bytes of each are read. */
  readonly memories: ReadonlyMap<Node, number>;
  /** What lies between them and the operand, which is one of these. */
  readonly nodes: ReadonlySet<Node>;
}

/** What is read to compute a node. */
interface Reading {
  readonly memories: ReadonlyMap<Node, number>;
  /** Whether all of it is there before the plan runs. */
  readonly isGiven: boolean;
}

/** Nodes that are looked at to rule an operand out at once. */
const mostLooked = 64;

/** Whether an operand has memory of its own, or is computed element by element from a tensor in memory that is as large: most activations are. */
function readsItsSize(graph: NumberedGraph, root: number, forced: Uint8Array): boolean {
  if (forced[root] || isApart(graph.node(root))) return true;
  const size = sizeOf(graph.node(root).shape);
  const seen = [root];
  for (let at = 0; at < seen.length; at++) {
    if (seen.length > mostLooked) return false;
    const number = seen[at] as number;
    const node = graph.node(number);
    if (number !== root && (node.op === "buffer" || forced[number] || isApart(node))) return true;
    if (!elementwise.has(node.op)) continue;
    for (const input of graph.inputs.subarray(graph.starts[number], graph.starts[number + 1])) {
      const read = graph.node(input);
      const isLarge = read.dtype === "f32" && read.op !== "const" && read.op !== "iota" && sizeOf(read.shape) === size;
      if (isLarge && !seen.includes(input)) seen.push(input);
    }
  }
  return false;
}

const elementwise: ReadonlySet<string> = new Set(["unary", "binary", "select", "cast", "detach", "reshape", "permute"]);

/** The operand of a product of so many rows as an expression that is cheap and reads little; null where there is none. */
function expansionOf(root: Node, rows: number, isForced: (node: Node) => boolean): Expansion | null {
  // Around what is padded there are zeros enough to store it: to choose for each element would cost more.
  if (root.dtype !== "f32" || root.op === "pad") return null;
  const nodes = new Set<Node>();
  const readings = new Map<Node, Reading>();
  let isCheap = true;
  const bytesOf = (node: Node): number => sizeOf(node.shape) * dtypeBytes[node.dtype];
  const alone = (node: Node): Reading => ({ memories: new Map([[node, bytesOf(node)]]), isGiven: node.op === "buffer" });
  const visit = (node: Node, depth: number): Reading => {
    const known = readings.get(node);
    if (known) return known;
    const found = read(node, depth);
    readings.set(node, found);
    return found;
  };
  const read = (node: Node, depth: number): Reading => {
    if (node.op === "const" || node.op === "iota") return { memories: new Map(), isGiven: true };
    if (node.op === "buffer" || isForced(node) || isApart(node)) return alone(node);
    if (nodes.size > mostNodes || depth > mostNodes) return alone(node);
    const inputs = inputsOf(node).map((input) => visit(input, depth + 1));
    const memories = new Map<Node, number>();
    for (const input of inputs)
      for (const [memory, bytes] of input.memories) memories.set(memory, Math.max(bytes, memories.get(memory) ?? 0));
    // Part of a tensor reads no more than the part.
    if (node.op === "slice" || node.op === "dynamicSlice" || node.op === "gather")
      for (const [memory, bytes] of memories) memories.set(memory, Math.min(bytes, sizeOf(node.shape) * dtypeBytes[memory.dtype]));
    const isGiven = inputs.every((input) => input.isGiven);
    const isCostly =
      (node.op === "unary" || node.op === "binary") && node.dtype === "f32" && costly.has(node.kind) && !dividesByNumber(node);
    if (node !== root && !isView(node)) {
      const isSmall = sizeOf(node.shape) * 4 <= sizeOf(root.shape);
      // A value that is no larger than what it is made of is computed once, before.
      if (isCostly ? isSmall : !isGiven && bytesOf(node) <= total(memories)) return alone(node);
    }
    if (isCostly) isCheap = false;
    nodes.add(node);
    return { memories, isGiven };
  };
  const { memories } = visit(root, 0);
  const isSmall = total(memories) <= mostShare * bytesOf(root) || (rows <= fewRows && choosesMatrices(root));
  return isCheap && isSmall && memories.size <= mostMemories && nodes.size <= mostNodes
    ? { memories, nodes: reached(root, memories) }
    : null;
}

/** Whole matrices of a tensor in memory, chosen by number, as experts' weights are: where one begins is all that is computed. */
function choosesMatrices(root: Node): boolean {
  const node = behindViews(root);
  return node.op === "gather" && node.axis <= node.x.shape.length - 3 && behindViews(node.x).op === "buffer";
}

/** Whether an operand of products, of which nothing has memory but what is given, would be computed as it is read. */
export function isComputedAsRead(operand: Node): boolean {
  const root = behindDetached(operand);
  return root.op !== "buffer" && expansionOf(root, manyRows, () => false) !== null;
}

/** Rows of a product that are many: what a few would read otherwise does not count. */
const manyRows = 1024;

function behindDetached(node: Node): Node {
  return isView(node) || node.op === "detach" ? behindDetached(node.x) : node;
}

/** Nodes from the operand down to the memories. */
function reached(root: Node, memories: ReadonlyMap<Node, number>): Set<Node> {
  const seen = new Set<Node>();
  const visit = (node: Node): void => {
    if (seen.has(node) || memories.has(node) || isFree(node)) return;
    seen.add(node);
    for (const input of inputsOf(node)) visit(input);
  };
  visit(root);
  return seen;
}

function dividesByNumber(node: Node): boolean {
  return node.op === "binary" && (node.kind === "div" || node.kind === "mod") && node.b.op === "const";
}

/** Whether a node has memory of its own, or cannot be part of an operand. */
function isApart(node: Node): boolean {
  return hasOwnKernel(node) || isNarrowing(node) || node.op === "reduce" || node.op === "random";
}

function total(memories: ReadonlyMap<Node, number>): number {
  let bytes = 0;
  for (const each of memories.values()) bytes += each;
  return bytes;
}

/**
 * True for an operand that is memory seen through views which repeat elements, as the windows of a convolution do: those are no strides, but
 * need no copy either.
 */
export function isRepeating(operand: Node): boolean {
  return isView(operand) && (operand.op === "expand" || isRepeating(operand.x));
}

/** An operand [...batch, rows, columns] of a matmul as an expression, or what has to be stored to make it one. */
export function loadOperand(operand: Node, findSlot: FindSlot): { readonly operand: LoadOperand } | { readonly store: readonly Node[] } {
  const lowered = lowerOperand(operand, findSlot);
  if ("store" in lowered) return lowered;
  const slots = new Set<Slot>();
  for (const expr of expressionsBelow([lowered.value])) if (expr.op === "load") slots.add(expr.slot);
  return { operand: { value: lowered.value, slots: [...slots] } };
}
