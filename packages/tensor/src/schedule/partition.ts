import { binaryKinds } from "../elementwise/binary.js";
import { unaryKinds } from "../elementwise/unary.js";
import { inputsOf, type Node } from "../graph/node.js";
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

/** What computing one element of a node costs, from values in memory: arithmetic, and the full-size operands that it reads. */
interface Cost {
  work: number;
  /** Whether it takes sums or maxima over rows. */
  reduces: boolean;
  /** Two of them stand for more. */
  first: Node | null;
  second: Node | null;
}

/** The nodes that use each node, once for each use. */
export function usersIn(order: readonly Node[]): Map<Node, Node[]> {
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

/**
 * Decides which nodes get memory. A node outside the set is computed inside the kernels of those that use it: when that is one kernel, or
 * when recomputing is cheaper than a round trip through memory.
 */
export function partition(
  roots: readonly Node[],
  order: readonly Node[],
  users: ReadonlyMap<Node, readonly Node[]>,
  strided: ReadonlySet<string>,
): Set<Node> {
  const stored = new Set<Node>();
  for (const root of roots) stored.add(behindReshapes(root));
  const operands = productOperands(order, stored);
  for (const node of operands.stored) stored.add(node);
  for (const node of order) {
    if (hasOwnKernel(node) || isNarrowing(node)) stored.add(node);
    if (node.op === "scatterAdd") for (const input of inputsOf(node)) store(stored, behindReshapes(input));
    if (node.op === "composite") {
      const own = ownInputs(node);
      const behind = strided.has(node.name) ? behindViews : behindReshapes;
      for (const [i, input] of node.inputs.entries()) store(stored, (i < own ? behind : behindViews)(input));
    }
    if (isUpdate(node)) store(stored, behindReshapes(node.x));
    if (node.op === "random") store(stored, behindReshapes(node.key));
  }
  for (const node of stored) if (isFree(node)) stored.delete(node);
  for (const root of roots) stored.add(behindReshapes(root));

  // What a value costs depends on what else is stored, which is decided after it: a first decision gives the second its costs.
  const first = decided(order, users, stored, operands.computed, costOf(order, stored));
  const second = decided(order, users, stored, operands.computed, costOf(order, first.stored));
  for (const node of computedEarly(order, users, second, new Set(roots.map(behindReshapes)))) second.stored.add(node);
  limitSizes(order, second.stored);
  return second.stored;
}

/**
 * What one kernel computes at most, about: nodes, and how many of them, and of views, one after another. More of them save reads, but cost
 * registers, and each view makes the index longer.
 */
const most = { nodes: 1024, depth: 256, views: 32 } as const;

/** How much lies behind a node, down to what is stored. */
interface Size {
  nodes: number;
  depth: number;
  views: number;
}

/** Stores nodes behind which lies too much for one kernel. */
function limitSizes(order: readonly Node[], stored: Set<Node>): void {
  const sizes = new Map<Node, Size>();
  for (const node of order) {
    if (isFree(node)) continue;
    const size: Size = { nodes: 1, depth: 0, views: 0 };
    for (const input of inputsOf(node)) {
      const inner = stored.has(input) ? undefined : sizes.get(input);
      if (!inner) continue;
      size.nodes += inner.nodes;
      size.depth = Math.max(size.depth, inner.depth);
      size.views = Math.max(size.views, inner.views);
    }
    size.depth++;
    size.views = isView(node) ? size.views + 1 : 0;
    // What is used twice was counted twice.
    if (size.nodes > most.nodes) size.nodes = countBehind(node, stored, 3 * most.nodes);
    // A view is better not stored.
    const isLarge = size.nodes > most.nodes || size.depth > most.depth;
    if (isView(node) ? size.views > most.views : isLarge) stored.add(node);
    sizes.set(node, size);
  }
}

/** The nodes that are computed with one, at most `limit`. */
function countBehind(root: Node, stored: ReadonlySet<Node>, limit: number): number {
  const seen = new Set([root]);
  for (const node of seen) {
    for (const input of inputsOf(node)) if (!stored.has(input) && !isFree(input)) seen.add(input);
    if (seen.size >= limit) return limit;
  }
  return seen.size;
}

/** Which nodes get memory; and for each of the others the kernel, by the node that it stores, that computes it, null where several do. */
export interface Decision {
  readonly stored: Set<Node>;
  readonly kernels: ReadonlyMap<Node, Node | null>;
}

/** The set grown, from the results backwards, by what is worth storing at these costs; never by what operands compute as they are read. */
function decided(
  order: readonly Node[],
  users: ReadonlyMap<Node, readonly Node[]>,
  fixed: ReadonlySet<Node>,
  computed: ReadonlySet<Node>,
  costs: ReadonlyMap<Node, Cost>,
): Decision {
  const stored = new Set(fixed);
  const kernels = new Map<Node, Node | null>();
  for (let i = order.length - 1; i >= 0; i--) {
    const node = order[i] as Node;
    if (stored.has(node)) continue;
    const its = users.get(node) ?? [];
    let into: Node | null | undefined;
    for (const user of its) {
      const kernel = stored.has(user) ? user : kernels.get(user);
      if (kernel === undefined) continue;
      into = into === undefined || into === kernel ? kernel : null;
      if (into === null) break;
    }
    const isShared = into === null;
    if (
      !isFree(node) &&
      !isView(node) &&
      !computed.has(node) &&
      (node.op === "reduce" ? isShared : isWorthStoring(costs.get(node), isShared, node, its))
    ) {
      stored.add(node);
    } else if (into !== undefined) kernels.set(node, into);
  }
  return { stored, kernels };
}

function store(stored: Set<Node>, node: Node): void {
  stored.add(node);
}

function costOf(order: readonly Node[], stored: ReadonlySet<Node>): Map<Node, Cost> {
  const costs = new Map<Node, Cost>();
  for (const node of order) {
    const cost: Cost = {
      work: isView(node) || isFree(node) || node.op === "detach" ? 0 : node.op === "random" ? 40 : 1,
      reduces: node.op === "reduce",
      first: node.op === "buffer" ? node : null,
      second: null,
    };
    if ((node.op === "unary" || node.op === "binary") && costly.has(node.kind)) cost.work = 6;
    // What is broadcast stays in cache.
    const isBroadcast = node.op === "expand" && sizeOf(node.shape) > 4 * sizeOf(node.x.shape);
    for (const input of inputsOf(node)) {
      const inner = stored.has(input) ? undefined : costs.get(input);
      cost.work += inner?.work ?? 0;
      cost.reduces ||= inner?.reduces ?? false;
      if (isBroadcast) continue;
      addOperand(cost, inner ? inner.first : input);
      addOperand(cost, inner ? inner.second : null);
    }
    costs.set(node, cost);
  }
  return costs;
}

function addOperand(cost: Cost, operand: Node | null): void {
  if (operand === null || operand === cost.first || cost.second !== null) return;
  if (cost.first === null) cost.first = operand;
  else cost.second = operand;
}

/** A sum of products to which another one is added: kept as it runs, since else each product waits for the last one. */
function isRunningSum(node: Node, users: readonly Node[]): boolean {
  const addsProduct = (sum: Node): boolean =>
    sum.op === "binary" && sum.kind === "add" && [sum.a, sum.b].some((term) => term.op === "matmul");
  return addsProduct(node) && users.every(addsProduct);
}

function isWorthStoring(cost: Cost | undefined, isShared: boolean, node: Node, users: readonly Node[]): boolean {
  if (!cost) return false;
  if (isRunningSum(node, users)) return true;
  // Reductions that several kernels use are stored themselves. Read from one tensor, a value is made anew as long as that costs about what keeping it would: a store, a load, and the memory from
  // the forward pass to the backward pass, which an activation then does not take.
  if (isShared) return cost.second !== null || cost.work > 24;
  // Repeated along leading axes, an expensive value would be computed once for every repetition; along the last axis it is hoisted.
  const repeats = users.some(
    (user) => user.op === "expand" && user.shape.some((size, axis) => axis < user.shape.length - 1 && size !== node.shape[axis]),
  );
  return repeats && (cost.work > 6 || cost.reduces);
}
