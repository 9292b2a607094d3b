import { inputsOf, type Node } from "../graph/node.js";
import { sizeOf } from "../tensor/shape.js";
import { costly, type Decision, isView } from "./partition.js";

/**
 * Values to keep in place of a matrix product: where a later kernel reads the product only to compute a function of it, and an earlier one
 * computes the costly part of that function anyway, the earlier one does all of it. It stores as much as before, and what it would have
 * computed twice is computed once: the slope of an activation beside its value, from one exponential.
 */
export function computedEarly(
  order: readonly Node[],
  users: ReadonlyMap<Node, readonly Node[]>,
  { stored, kernels }: Decision,
  roots: ReadonlySet<Node>,
): Node[] {
  const sources = sourcesOf(order);
  const isCostlyTwice = (node: Node): boolean =>
    (node.op === "unary" || node.op === "binary") && costly.has(node.kind) && kernels.get(node) === null;
  const repeats = new Set<Node>();
  const candidates = new Set<Node>();
  for (const node of order) {
    const source = sources.get(node);
    if (stored.has(node) || !source) continue;
    if (isCostlyTwice(node) || inputsOf(node).some((input) => repeats.has(input))) repeats.add(node);
    const isWhole = node.dtype === "f32" && sizeOf(node.shape) === sizeOf(source.shape) && !isView(node);
    if (repeats.has(node) && isWhole && kernels.get(node) && !roots.has(source)) candidates.add(node);
  }
  return [...candidates].filter((node) => {
    const kernel = kernels.get(node);
    if (!kernel || usersBehindViews(node, users).some((user) => candidates.has(user))) return false;
    return !reads(kernel, sources.get(node) as Node, node, stored);
  });
}

/**
 * For each node the product of which it is a function, element by element; missing where it is a function of more, or of another kind. A
 * value on the way that is stored is at hand where the function is computed.
 */
function sourcesOf(order: readonly Node[]): Map<Node, Node> {
  const sources = new Map<Node, Node>();
  for (const node of order) {
    if (node.op === "matmul") sources.set(node, node);
    if (!["unary", "binary", "select", "cast", "reshape", "detach"].includes(node.op)) continue;
    const found = new Set<Node>();
    let isFunction = true;
    for (const input of inputsOf(node)) {
      const source = sources.get(input);
      if (source) found.add(source);
      else if (!isRepeated(input)) isFunction = false;
    }
    const [source] = found;
    if (isFunction && source && found.size === 1) sources.set(node, source);
  }
  return sources;
}

/** What uses a node, as it is or through views. */
function usersBehindViews(node: Node, users: ReadonlyMap<Node, readonly Node[]>): Node[] {
  const seen = new Set<Node>([node]);
  const found: Node[] = [];
  for (const viewed of seen) {
    for (const user of users.get(viewed) ?? []) {
      if (isView(user)) seen.add(user);
      else found.push(user);
    }
  }
  return found;
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
function reads(root: Node, source: Node, apart: Node, stored: ReadonlySet<Node>): boolean {
  const seen = new Set<Node>([root]);
  for (const node of seen) {
    if (node === source || seen.size > maxLooked) return true;
    if (node === apart || (node !== root && stored.has(node))) continue;
    for (const input of inputsOf(node)) seen.add(input);
  }
  return false;
}
