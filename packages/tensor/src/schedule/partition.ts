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
  return node.op === "reshape" ? behindReshapes(node.x) : node;
}

/** The node behind views. */
export function behindViews(node: Node): Node {
  return isView(node) ? behindViews(node.x) : node;
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
  readonly work: number;
  /** Whether it takes sums or maxima over rows. */
  readonly reduces: boolean;
  /** Two of them stand for more. */
  readonly operands: ReadonlySet<Node>;
}

const nothing: ReadonlySet<Node> = new Set();

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
  return second.stored;
}

/** Which nodes get memory, and the kernels, each by the node that it stores, that compute each of the others. */
export interface Decision {
  readonly stored: Set<Node>;
  readonly kernels: ReadonlyMap<Node, ReadonlySet<Node>>;
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
  const kernels = new Map<Node, Set<Node>>();
  for (let i = order.length - 1; i >= 0; i--) {
    const node = order[i] as Node;
    if (stored.has(node)) continue;
    const into = new Set<Node>();
    for (const user of users.get(node) ?? []) {
      if (stored.has(user)) into.add(user);
      else for (const kernel of kernels.get(user) ?? []) into.add(kernel);
    }
    const isShared = into.size > 1;
    if (
      !isFree(node) &&
      !isView(node) &&
      !computed.has(node) &&
      (node.op === "reduce" ? isShared : isWorthStoring(costs.get(node), isShared, node, users.get(node) ?? []))
    ) {
      stored.add(node);
    } else kernels.set(node, into);
  }
  return { stored, kernels };
}

function store(stored: Set<Node>, node: Node): void {
  stored.add(node);
}

function costOf(order: readonly Node[], stored: ReadonlySet<Node>): Map<Node, Cost> {
  const costs = new Map<Node, Cost>();
  for (const node of order) {
    let work = isView(node) || isFree(node) || node.op === "detach" ? 0 : node.op === "random" ? 40 : 1;
    if ((node.op === "unary" || node.op === "binary") && costly.has(node.kind)) work = 6;
    let reduces = node.op === "reduce";
    const operands = new Set<Node>(node.op === "buffer" ? [node] : []);
    for (const input of inputsOf(node)) {
      const cost = stored.has(input) ? null : costs.get(input);
      work += cost?.work ?? 0;
      reduces ||= cost?.reduces ?? false;
      // What is broadcast stays in cache.
      const read = node.op === "expand" && sizeOf(node.shape) > 4 * sizeOf(node.x.shape) ? nothing : (cost?.operands ?? [input]);
      for (const operand of read) if (operands.size < 2) operands.add(operand);
    }
    costs.set(node, { work, reduces, operands });
  }
  return costs;
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
  if (isShared) return cost.operands.size > 1 || cost.work > 24;
  // Repeated along leading axes, an expensive value would be computed once for every repetition; along the last axis it is hoisted.
  const repeats = users.some(
    (user) => user.op === "expand" && user.shape.some((size, axis) => axis < user.shape.length - 1 && size !== node.shape[axis]),
  );
  return repeats && (cost.work > 6 || cost.reduces);
}
