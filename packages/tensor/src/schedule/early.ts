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
    (node.op === "unary" || node.op === "binary") && costly.has(node.kind) && (kernels.get(node)?.size ?? 0) > 1;
  const repeats = new Set<Node>();
  const candidates = new Set<Node>();
  for (const node of order) {
    const source = sources.get(node);
    if (stored.has(node) || !source) continue;
    if (isCostlyTwice(node) || inputsOf(node).some((input) => repeats.has(input))) repeats.add(node);
    const isWhole = node.dtype === "f32" && sizeOf(node.shape) === sizeOf(source.shape) && !isView(node);
    if (repeats.has(node) && isWhole && kernels.get(node)?.size === 1 && !roots.has(source)) candidates.add(node);
  }
  const behind = (node: Node): readonly Node[] => (users.get(node) ?? []).flatMap((user) => (isView(user) ? behind(user) : [user]));
  return [...candidates].filter((node) => {
    const [kernel] = kernels.get(node) ?? [];
    if (!kernel || behind(node).some((user) => candidates.has(user))) return false;
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

/** True for constants and for tensors from outside that are small beside what they are repeated to, as a bias. */
function isRepeated(node: Node): boolean {
  if (node.op === "const") return true;
  if (node.op === "reshape" || node.op === "cast") return isRepeated(node.x);
  return node.op === "expand" && isLeaf(node.x) && sizeOf(node.shape) > 4 * sizeOf(node.x.shape);
}

function isLeaf(node: Node): boolean {
  return node.op === "buffer" || ((node.op === "reshape" || node.op === "cast") && isLeaf(node.x));
}

/** Whether the kernel that stores `root` reads a stored node, other than to compute `apart`. */
function reads(root: Node, source: Node, apart: Node, stored: ReadonlySet<Node>): boolean {
  const seen = new Set<Node>([apart]);
  const visit = (node: Node): boolean => {
    if (node === source) return true;
    if (seen.has(node) || (node !== root && stored.has(node))) return false;
    seen.add(node);
    return inputsOf(node).some(visit);
  };
  return visit(root);
}
