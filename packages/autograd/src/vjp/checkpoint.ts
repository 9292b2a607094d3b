import { inputsOf, isFloat, type Node, Tensor, topological, where, withInputs } from "@lowrank/tensor";

/** The inputs of checkpointed expressions, by the node of their result. */
const segments = new WeakMap<Node, readonly Node[]>();

/** The inputs of the segment that ends in a node, or null. */
export function segmentInputs(node: Node): readonly Node[] | null {
  return segments.get(node) ?? null;
}

/**
 * `fn(...inputs)`, of which the backward pass keeps only the inputs: everything between is computed a second time where gradients need
 * it, the same random numbers included (Chen et al. 2016). Time for memory; the values do not change. Tensors that `fn` captures, such as
 * parameters, get their gradients too. torch.utils.checkpoint.checkpoint.
 */
export function checkpoint<T extends readonly Tensor[]>(fn: (...inputs: T) => Tensor, ...inputs: T): Tensor {
  const result = fn(...inputs);
  // A node of its own, which nothing inside `fn` or outside shares.
  const end: Node = { ...result.node };
  if (inputsOf(end).length === 0) return result;
  segments.set(
    end,
    inputs.map((input) => input.node),
  );
  return new Tensor(end, result.device);
}

/** A segment computed again. */
export interface Recomputed {
  readonly result: Node;
  /** The float inputs, and what takes their place in the copy. */
  readonly inputs: readonly Node[];
  readonly copies: readonly Node[];
}

/**
 * A copy of the graph from a segment's inputs to its end. The copies of the inputs depend on dy (x where dy₀ = dy₀), so that they are no
 * common subexpressions of the forward pass and wait for the backward pass.
 */
export function recompute(end: Node, inputs: readonly Node[], dy: Tensor): Recomputed {
  const first = dy.flatten().narrow(0, 0, 1).reshape([]);
  const hasArrived = first.equal(first);
  const copies = new Map<Node, Node>();
  for (const input of inputs) {
    if (isFloat(input.dtype)) copies.set(input, where(hasArrived, new Tensor(input, dy.device), 0).cast(input.dtype).node);
  }
  const given = [...copies.keys()];
  const givenCopies = [...copies.values()];
  for (const node of topological([end], (n) => (copies.has(n) ? [] : inputsOf(n)))) {
    if (copies.has(node) || !inputsOf(node).some((input) => copies.has(input))) continue;
    const copy = withInputs(
      node,
      inputsOf(node).map((input) => copies.get(input) ?? input),
    );
    const inner = node === end ? null : segments.get(node);
    if (inner) {
      segments.set(
        copy,
        inner.map((input) => copies.get(input) ?? input),
      );
    }
    copies.set(node, copy);
  }
  return { result: copies.get(end) ?? end, inputs: given, copies: givenCopies };
}
