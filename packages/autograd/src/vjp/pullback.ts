import {
  type Device,
  inputAt,
  inputsOf,
  type Node,
  passesGradients,
  realizedStorage,
  type Storage,
  type Tensor,
  topological,
} from "@lowrank/tensor";
import { recompute, segmentInputs } from "./checkpoint.js";
import { composite } from "./composite.js";
import { behindReads, checkHistories } from "./history.js";
import type { Flow, Rule } from "./rule.js";
import { rules } from "./rules.js";

/** What makes two nodes the same value: the storage that holds it, else the node itself. */
function identity(node: Node): Node | Storage {
  return node.op === "buffer" && !node.storage.at(node.version) ? node : (realizedStorage(node) ?? node);
}

const none: ReadonlySet<Node> = new Set();

/**
 * Reverse-mode differentiation (Linnainmaa 1970) on the graph: gradients of `wrt` when `roots` have the gradients `dys`. Only nodes on a
 * path from `wrt` to `roots` are visited and only their gradients recorded. null where no path leads. What lies behind `leaves` does not
 * count: they are independent variables, even two that read one storage. Values that were read count as the expressions behind them; throws
 * HistoryError where one of `wrt` may lie behind an expression that is gone. Long: what is visited, and what is kept on the way back, is read together.
 */
export function pullback(
  roots: readonly Node[],
  dys: readonly (Tensor | null)[],
  wrt: readonly Node[],
  device: Device,
  leaves: ReadonlySet<Node> = none,
  /** The tensors behind `wrt`, to check that no gradient goes missing. */
  tensors: readonly Tensor[] | null = null,
): (Tensor | null)[] {
  const keyOf = (node: Node): Node | Storage => (leaves.has(node) ? node : identity(node));
  const wanted = new Set(wrt.map(keyOf));
  const isWanted = (node: Node): boolean => wanted.has(keyOf(node));
  /** The node that stands for a value in this walk. */
  const seen = (node: Node): Node => (leaves.has(node) ? node : behindReads(node));
  const inputs = (node: Node): readonly Node[] => {
    if (leaves.has(node)) return [];
    const its = inputsOf(node);
    // Mostly they stand for themselves.
    return its.every((input) => seen(input) === input) ? its : its.map(seen);
  };
  const order = topological(roots.map(seen), inputs);
  if (tensors) checkHistories(order, { roots: roots.map(seen), wrt: tensors, isWanted, inputs });

  const needed = new Set<Node>();
  const readsNeeded = (node: Node): boolean => {
    if (leaves.has(node)) return false;
    for (let i = 0, input = inputAt(node, 0); input; input = inputAt(node, ++i)) if (needed.has(seen(input))) return true;
    return false;
  };
  for (const node of order) if (isWanted(node) || (passesGradients(node) && readsNeeded(node))) needed.add(node);

  // For each node and each of its results (one, but for composites) the sum so far.
  const sums = new Map<Node, (Tensor | null)[]>();
  const accumulate = (node: Node, index: number, dy: Tensor): void => {
    const results = sums.get(node) ?? [];
    const before = results[index];
    results[index] = before ? before.add(dy) : dy;
    sums.set(node, results);
  };
  const arrived = new Map<Node | Storage, Tensor>();
  const arrive = (node: Node, dy: Tensor): void => {
    const before = arrived.get(keyOf(node));
    arrived.set(keyOf(node), before ? before.add(dy.reshape(before.shape)) : dy);
  };
  const flow: Flow = {
    device,
    needs: (node) => needed.has(seen(node)),
    into(node, make) {
      const target = seen(node);
      if (needed.has(target)) accumulate(target, 0, make());
    },
    intoResult: accumulate,
    between: (from, gradients, to) => pullback(from, gradients, to, device, new Set(to)),
  };
  /** Through a checkpointed segment: into its inputs, and into what it captured of `wrt`. */
  const throughSegment = (end: Node, segment: readonly Node[], dy: Tensor): void => {
    const { result, inputs: given, copies } = recompute(end, segment, dy);
    const gradients = pullback([result], [dy], [...copies, ...wrt], device, new Set([...leaves, ...copies]));
    for (const [i, gradient] of gradients.entries()) {
      if (!gradient) continue;
      const input = given[i];
      const captured = wrt[i - given.length];
      if (input) flow.into(input, () => gradient);
      // Each value once, however often it is in wrt.
      else if (captured && wrt.findIndex((node) => keyOf(node) === keyOf(captured)) === i - given.length) arrive(captured, gradient);
    }
  };

  for (const [i, root] of roots.entries()) {
    const dy = dys[i];
    if (dy && needed.has(seen(root))) accumulate(seen(root), 0, dy);
  }
  for (const node of order.reverse()) {
    const results = sums.get(node);
    if (!results) continue;
    sums.delete(node);
    const [dy] = results;
    if (dy && isWanted(node)) arrive(node, dy);
    if (leaves.has(node)) continue;
    const segment = segmentInputs(node);
    if (node.op === "composite")
      composite(
        node,
        Array.from(node.outputs, (_, i) => results[i] ?? null),
        flow,
      );
    else if (dy && segment) throughSegment(node, segment, dy);
    // The table holds for each op the rule of that op.
    else if (dy) (rules[node.op] as Rule<Node["op"]>)(node, dy, flow);
  }
  return wrt.map((node) => arrived.get(keyOf(node))?.reshape(node.shape) ?? null);
}
