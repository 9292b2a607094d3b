import { binaryKinds } from "../elementwise/binary.js";
import { unaryKinds } from "../elementwise/unary.js";
import type { Node } from "../graph/node.js";
import type { NumberedGraph } from "../graph/numbered.js";
import { dtypeBytes } from "../tensor/dtype.js";
import { sizeOf } from "../tensor/shape.js";
import { computedEarly } from "./early.js";
import { productOperands } from "./operands.js";

/** Views cost nothing inside a kernel: they only change its index arithmetic. */
export function isView(node: Node): node is Node & { op: "reshape" | "permute" | "expand" | "slice" } {
  return node.op === "reshape" || node.op === "permute" || node.op === "expand" || node.op === "slice";
}

/** The node behind reshapes, whose elements lie in the same order. */
export function behindReshapes(node: Node): Node {
  let behind = node;
  while (behind.op === "reshape") behind = behind.x;
  return behind;
}

/** The node behind views. */
export function behindViews(node: Node): Node {
  let behind = node;
  while (isView(behind)) behind = behind.x;
  return behind;
}

/** How many inputs of a composite are its own, in front of those that its bodies captured. */
export function ownInputs({ inputs, attributes }: Node & { op: "composite" }): number {
  return inputs.length - Number(attributes["captures"] ?? 0);
}

/** Nodes whose value always lies in memory of its own. */
export function hasOwnKernel(node: Node): boolean {
  return node.op === "matmul" || node.op === "scatterAdd" || node.op === "composite" || node.op === "output" || isUpdate(node);
}

/** True for an update of something in memory, which is worth not writing again; one of a constant fuses as padding does. */
export function isUpdate(node: Node): node is Node & { op: "dynamicUpdateSlice" } {
  return node.op === "dynamicUpdateSlice" && behindViews(node.x).op !== "const";
}

/** Constants and counters are made up in place wherever they are needed. */
export function isFree(node: Node): boolean {
  return node.op === "const" || node.op === "iota" || node.op === "buffer";
}

/** Rounding to a narrow type must not be optimised away, so such a cast is stored. */
export function isNarrowing(node: Node): boolean {
  return node.op === "cast" && (dtypeBytes[node.dtype] === 2 || node.dtype === "u8") && node.dtype !== node.x.dtype;
}

/** Kinds of functions and arithmetic that take many instructions. */
export const costly: ReadonlySet<string> = new Set(
  [...Object.entries(unaryKinds), ...Object.entries(binaryKinds)].filter(([, { cost }]) => cost >= 4).map(([kind]) => kind),
);

/** The number of the node behind reshapes. */
export function numberBehindReshapes(graph: NumberedGraph, number: number): number {
  const { nodes, starts, inputs } = graph;
  let behind = number;
  while ((nodes[behind] as Node).op === "reshape") behind = inputs[starts[behind] as number] as number;
  return behind;
}

/** The number of the node behind views. */
export function numberBehindViews(graph: NumberedGraph, number: number): number {
  let behind = number;
  while (isView(graph.node(behind))) behind = graph.input(behind);
  return behind;
}

/**
 * Decides which nodes get memory: 1 for their numbers. A node outside the set is computed inside the kernels of those that use it: when that
 * is one kernel, or when recomputing is cheaper than a round trip through memory.
 */
export function partition(graph: NumberedGraph, strided: ReadonlySet<string>): Uint8Array {
  const { nodes, roots } = graph;
  const stored = new Uint8Array(graph.count);
  const results = roots.map((root) => numberBehindReshapes(graph, root));
  for (const result of results) stored[result] = 1;
  const { computed, stored: operands } = productOperands(graph, stored);
  for (const number of operands) stored[number] = 1;
  const store = (number: number): void => {
    stored[number] = 1;
  };
  for (let i = 0; i < nodes.length; i++) {
    const node = nodes[i] as Node; // within bounds
    if (hasOwnKernel(node) || isNarrowing(node)) store(i);
    if (node.op === "scatterAdd") for (const index of [0, 1]) store(numberBehindReshapes(graph, graph.input(i, index)));
    if (node.op === "composite") {
      const own = ownInputs(node);
      const behind = strided.has(node.name) ? numberBehindViews : numberBehindReshapes;
      for (const index of node.inputs.keys()) store((index < own ? behind : numberBehindViews)(graph, graph.input(i, index)));
    }
    if (isUpdate(node)) store(numberBehindReshapes(graph, graph.input(i)));
    if (node.op === "random") for (const index of [0, 1]) store(numberBehindReshapes(graph, graph.input(i, index)));
  }
  for (let i = 0; i < nodes.length; i++) if (stored[i] && isFree(nodes[i] as Node)) stored[i] = 0;
  for (const result of results) stored[result] = 1;

  // What a value costs depends on what else is stored, which is decided after it: a first decision gives the second its costs.
  const kinds = kindsOf(graph);
  const first = decided(graph, kinds, stored, computed, new Costs(graph, kinds, stored));
  const second = decided(graph, kinds, stored, computed, new Costs(graph, kinds, first.stored));
  for (const number of computedEarly(graph, second, new Set(results))) second.stored[number] = 1;
  limitSizes(graph, kinds, second.stored);
  return second.stored;
}

/** What partition asks of each node again and again, as bits. */
const kindBits = { view: 1, free: 2, expand: 4, reduce: 8, random: 16, costly: 32, detach: 64 } as const;

function kindsOf({ nodes }: NumberedGraph): Uint8Array {
  const kinds = new Uint8Array(nodes.length);
  for (let i = 0; i < nodes.length; i++) {
    const node = nodes[i] as Node; // within bounds
    let bits = 0;
    if (isView(node)) bits |= node.op === "expand" ? kindBits.view | kindBits.expand : kindBits.view;
    else if (isFree(node)) bits |= kindBits.free;
    else if (node.op === "reduce") bits |= kindBits.reduce;
    else if (node.op === "random") bits |= kindBits.random;
    else if (node.op === "detach") bits |= kindBits.detach;
    else if ((node.op === "unary" || node.op === "binary") && costly.has(node.kind)) bits |= kindBits.costly;
    kinds[i] = bits;
  }
  return kinds;
}

/**
 * What one kernel computes at most, about: nodes, and how many of them, and of views, one after another. More of them save reads, but cost
 * registers, and each view makes the index longer.
 */
const most = { nodes: 1024, depth: 256, views: 32 } as const;

/** Stores nodes behind which lies too much for one kernel. */
function limitSizes(graph: NumberedGraph, kinds: Uint8Array, stored: Uint8Array): void {
  const { starts, inputs, count } = graph;
  /** How much lies behind a node, down to what is stored. */
  const nodes = new Float64Array(count);
  const depths = new Int32Array(count);
  const views = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    const kind = kinds[i] as number;
    if (kind & kindBits.free) continue;
    let size = 1;
    let depth = 0;
    let viewed = 0;
    const end = starts[i + 1] as number;
    for (let edge = starts[i] as number; edge < end; edge++) {
      const input = inputs[edge] as number;
      if (stored[input]) continue;
      size += nodes[input] as number;
      depth = Math.max(depth, depths[input] as number);
      viewed = Math.max(viewed, views[input] as number);
    }
    depth++;
    const isViewed = (kind & kindBits.view) !== 0;
    viewed = isViewed ? viewed + 1 : 0;
    // What is used twice was counted twice.
    if (size > most.nodes) size = countBehind(graph, kinds, i, stored, 3 * most.nodes);
    // A view is better not stored.
    if (isViewed ? viewed > most.views : size > most.nodes || depth > most.depth) stored[i] = 1;
    nodes[i] = size;
    depths[i] = depth;
    views[i] = viewed;
  }
}

/** The nodes that are computed with one, at most `limit`. */
function countBehind({ starts, inputs }: NumberedGraph, kinds: Uint8Array, root: number, stored: Uint8Array, limit: number): number {
  const seen = new Set([root]);
  for (const number of seen) {
    for (const input of inputs.subarray(starts[number], starts[number + 1]))
      if (!stored[input] && !((kinds[input] as number) & kindBits.free)) seen.add(input);
    if (seen.size >= limit) return limit;
  }
  return seen.size;
}

/**
 * Which nodes get memory; and for each of the others the kernel, by the node that it stores, that computes it: `inSeveral` where several do,
 * `inNone` where none does.
 */
export interface Decision {
  readonly stored: Uint8Array;
  readonly kernels: Int32Array;
}

export const inSeveral = -1;
export const inNone = -2;

/** The set grown, from the results backwards, by what is worth storing at these costs; never by what operands compute as they are read. */
function decided(graph: NumberedGraph, kinds: Uint8Array, fixed: Uint8Array, computed: ReadonlySet<number>, costs: Costs): Decision {
  const { count } = graph;
  const { starts, users } = graph.users;
  const stored = fixed.slice();
  const kernels = new Int32Array(count).fill(inNone);
  for (let i = count - 1; i >= 0; i--) {
    if (stored[i]) continue;
    let into = inNone;
    const end = starts[i + 1] as number;
    for (let edge = starts[i] as number; edge < end && into !== inSeveral; edge++) {
      const user = users[edge] as number;
      const kernel = stored[user] ? user : (kernels[user] as number);
      if (kernel === inNone) continue;
      into = into === inNone || into === kernel ? kernel : inSeveral;
    }
    const kind = kinds[i] as number;
    const mayStore = !(kind & (kindBits.free | kindBits.view)) && !computed.has(i);
    const isShared = into === inSeveral;
    if (mayStore && (kind & kindBits.reduce ? isShared : isWorthStoring(graph, costs, isShared, i))) stored[i] = 1;
    else kernels[i] = into;
  }
  return { stored, kernels };
}

/** What computing one element of each node costs, from values in memory: arithmetic, and the full-size operands that it reads. */
class Costs {
  readonly work: Float64Array;
  /** Whether it takes sums or maxima over rows. */
  readonly reduces: Uint8Array;
  /** Two of them stand for more; -1 where there are fewer. */
  readonly #first: Int32Array;
  readonly #second: Int32Array;

  constructor({ nodes, starts, inputs, count }: NumberedGraph, kinds: Uint8Array, stored: Uint8Array) {
    this.work = new Float64Array(count);
    this.reduces = new Uint8Array(count);
    this.#first = new Int32Array(count).fill(-1);
    this.#second = new Int32Array(count).fill(-1);
    for (let i = 0; i < count; i++) {
      const node = nodes[i] as Node;
      const kind = kinds[i] as number;
      let work =
        kind & (kindBits.view | kindBits.free | kindBits.detach) ? 0 : kind & kindBits.random ? 40 : kind & kindBits.costly ? 6 : 1;
      let reduces = (kind & kindBits.reduce) !== 0;
      if (node.op === "buffer") this.#first[i] = i;
      // What is broadcast stays in cache.
      const isBroadcast = node.op === "expand" && sizeOf(node.shape) > 4 * sizeOf(node.x.shape);
      const end = starts[i + 1] as number;
      for (let edge = starts[i] as number; edge < end; edge++) {
        const input = inputs[edge] as number;
        if (stored[input]) {
          if (!isBroadcast) this.#addOperand(i, input);
          continue;
        }
        work += this.work[input] as number;
        reduces ||= this.reduces[input] === 1;
        if (isBroadcast || (this.#first[input] as number) < 0) continue;
        this.#addOperand(i, this.#first[input] as number);
        if ((this.#second[input] as number) >= 0) this.#addOperand(i, this.#second[input] as number);
      }
      this.work[i] = work;
      this.reduces[i] = Number(reduces);
    }
  }

  readsTwo(number: number): boolean {
    return (this.#second[number] as number) >= 0;
  }

  #addOperand(number: number, operand: number): void {
    if (operand < 0 || operand === this.#first[number] || (this.#second[number] as number) >= 0) return;
    if ((this.#first[number] as number) < 0) this.#first[number] = operand;
    else this.#second[number] = operand;
  }
}

function addsProduct(node: Node): boolean {
  return node.op === "binary" && node.kind === "add" && (node.a.op === "matmul" || node.b.op === "matmul");
}

/** A sum of products to which another one is added: kept as it runs, since else each product waits for the last one. */
function isRunningSum(graph: NumberedGraph, number: number): boolean {
  const { nodes } = graph;
  if (!addsProduct(nodes[number] as Node)) return false;
  const { starts, users } = graph.users;
  const end = starts[number + 1] as number;
  for (let edge = starts[number] as number; edge < end; edge++) if (!addsProduct(nodes[users[edge] as number] as Node)) return false;
  return true;
}

function isWorthStoring(graph: NumberedGraph, costs: Costs, isShared: boolean, number: number): boolean {
  if (isRunningSum(graph, number)) return true;
  const work = costs.work[number] as number;
  // Reductions that several kernels use are stored themselves. Read from one tensor, a value is made anew as long as that costs about what keeping it would: a store, a load, and the memory from
  // the forward pass to the backward pass, which an activation then does not take.
  if (isShared) return costs.readsTwo(number) || work > 24;
  if (work <= 6 && !costs.reduces[number]) return false;
  // Repeated along leading axes, an expensive value would be computed once for every repetition; along the last axis it is hoisted.
  const { nodes } = graph;
  const { shape } = nodes[number] as Node;
  const { starts, users } = graph.users;
  const end = starts[number + 1] as number;
  for (let edge = starts[number] as number; edge < end; edge++) {
    const repeated = nodes[users[edge] as number] as Node;
    if (repeated.op === "expand" && repeated.shape.some((size, axis) => axis < repeated.shape.length - 1 && size !== shape[axis]))
      return true;
  }
  return false;
}
