import type { Node } from "../graph/node.js";
import type { NumberedGraph } from "../graph/numbered.js";
import { sizeOf } from "../tensor/shape.js";
import { costly, type Decision, inSeveral, isView } from "./partition.js";

/**
 * Values to keep in place of a matrix product: where a later kernel reads the product only to compute a function of it, and an earlier one
 * computes the costly part of that function anyway, the earlier one does all of it. It stores as much as before, and what it would have
 * computed twice is computed once: the slope of an activation beside its value, from one exponential.
 */
export function computedEarly(graph: NumberedGraph, { stored, kernels }: Decision, roots: ReadonlySet<number>): number[] {
  const { count, starts, inputs } = graph;
  const sources = sourcesOf(graph);
  const isCostlyTwice = (number: number): boolean => {
    const node = graph.node(number);
    return (node.op === "unary" || node.op === "binary") && costly.has(node.kind) && kernels[number] === inSeveral;
  };
  const repeats = new Uint8Array(count);
  const candidates = new Set<number>();
  for (let i = 0; i < count; i++) {
    const source = sources[i] as number;
    if (stored[i] || source < 0) continue;
    if (isCostlyTwice(i) || inputs.subarray(starts[i], starts[i + 1]).some((input) => repeats[input] === 1)) repeats[i] = 1;
    if (!repeats[i] || (kernels[i] as number) < 0 || roots.has(source)) continue;
    const node = graph.node(i);
    if (node.dtype === "f32" && sizeOf(node.shape) === sizeOf(graph.node(source).shape) && !isView(node)) candidates.add(i);
  }
  return [...candidates].filter((number) => {
    if (isUsedBy(graph, number, candidates)) return false;
    return !reads(graph, kernels[number] as number, sources[number] as number, number, stored);
  });
}

const functions: ReadonlySet<string> = new Set(["unary", "binary", "select", "cast", "reshape", "detach"]);

/**
 * For each node the product of which it is a function, element by element; -1 where it is a function of more, or of another kind. A value
 * on the way that is stored is at hand where the function is computed.
 */
function sourcesOf(graph: NumberedGraph): Int32Array {
  const { nodes, count, starts, inputs } = graph;
  const sources = new Int32Array(count).fill(-1);
  for (let i = 0; i < count; i++) {
    const { op } = nodes[i] as Node; // within bounds
    if (op === "matmul") sources[i] = i;
    if (!functions.has(op)) continue;
    let found = -1;
    let isFunction = true;
    const end = starts[i + 1] as number;
    for (let edge = starts[i] as number; edge < end && isFunction; edge++) {
      const input = inputs[edge] as number;
      const source = sources[input] as number;
      if (source >= 0) {
        isFunction = found < 0 || found === source;
        found = source;
      } else if (!isRepeated(nodes[input] as Node)) isFunction = false;
    }
    if (isFunction) sources[i] = found;
  }
  return sources;
}

/** Whether one of some nodes uses a node, as it is or through views. */
function isUsedBy(graph: NumberedGraph, number: number, others: ReadonlySet<number>): boolean {
  const { starts, users } = graph.users;
  const seen = new Set<number>([number]);
  for (const viewed of seen) {
    for (const user of users.subarray(starts[viewed], starts[viewed + 1])) {
      if (isView(graph.node(user))) seen.add(user);
      else if (others.has(user)) return true;
    }
  }
  return false;
}

/** True for constants and for tensors from outside that are small beside what they are repeated to, as a bias. */
function isRepeated(node: Node): boolean {
  const repeated = behindCasts(node);
  if (repeated.op === "const") return true;
  return repeated.op === "expand" && behindCasts(repeated.x).op === "buffer" && sizeOf(repeated.shape) > 4 * sizeOf(repeated.x.shape);
}

/** Reshapes and casts that are looked through. */
const maxCasts = 8;

function behindCasts(node: Node): Node {
  let behind = node;
  for (let i = 0; i < maxCasts && (behind.op === "reshape" || behind.op === "cast"); i++) behind = behind.x;
  return behind;
}

/** Nodes of a kernel that are looked at; a larger one counts as reading all. */
const maxLooked = 512;

/** Whether the kernel that stores `root` reads a stored node, other than to compute `apart`. */
function reads({ starts, inputs }: NumberedGraph, root: number, source: number, apart: number, stored: Uint8Array): boolean {
  const seen = new Set<number>([root]);
  for (const number of seen) {
    if (number === source || seen.size > maxLooked) return true;
    if (number === apart || (number !== root && stored[number])) continue;
    for (const input of inputs.subarray(starts[number], starts[number + 1])) seen.add(input);
  }
  return false;
}
