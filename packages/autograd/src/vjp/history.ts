import {
  currentTrace,
  expressionOf,
  HistoryError,
  homeOf,
  inputsOf,
  type Node,
  passesGradients,
  showShape,
  type Tensor,
  topological,
} from "@lowrank/tensor";

type BufferNode = Node & { readonly op: "buffer" };

/** Gradients that are asked for, and the graph that they go through. */
interface Walk {
  readonly roots: readonly Node[];
  readonly wrt: readonly Tensor[];
  readonly isWanted: (node: Node) => boolean;
  readonly inputs: (node: Node) => readonly Node[];
}

/**
 * The expression behind a value that was read, and through values that were read in turn; other nodes themselves. While a function is
 * compiled, what was computed outside of it is a value and nothing else.
 */
export function behindReads(node: Node): Node {
  if (currentTrace()) return node;
  let behind = node;
  for (let next = expressionOf(behind); next; next = expressionOf(behind)) behind = next;
  return behind;
}

/**
 * Throws HistoryError where a gradient would go missing without a word: where it may run through a value whose expression is gone, or
 * through the value that a tensor of `wrt` had before it was assigned to. `order` holds the nodes behind the roots.
 */
export function checkHistories(order: readonly Node[], { roots, wrt, isWanted, inputs }: Walk): void {
  const homes = new Set(wrt.map((t) => t.home));
  const isFormer = (node: Node): boolean => {
    const home = node.op === "buffer" || node.op === "detach" ? homeOf(node) : null;
    return home !== null && homes.has(home) && !isWanted(node);
  };
  const suspects = order.filter((node) => (node.op === "buffer" && node.history !== undefined) || isFormer(node));
  if (suspects.length === 0) return;
  // What lies behind a tensor of wrt does not count, nor what no gradient passes.
  const reached = new Set(topological(roots, (node) => (isWanted(node) || !passesGradients(node) ? [] : inputs(node))));
  for (const node of suspects) {
    if (!reached.has(node) || isWanted(node)) continue;
    if (isFormer(node)) {
      throw new HistoryError(
        `grad: the loss was computed from a ${describe(node)} tensor before it was assigned to: that change in place makes its gradient wrong. Take gradients before the update, or compute the loss again.`,
        node.shape,
      );
    }
    if (node.op === "buffer") checkHistory(node, wrt, isWanted, reached);
  }
}

function checkHistory(node: BufferNode, wrt: readonly Tensor[], isWanted: (node: Node) => boolean, reached: ReadonlySet<Node>): void {
  const history = node.history?.of;
  const expression = expressionOf(node);
  if (!history) return;
  if (expression) {
    const behind = (n: Node): readonly Node[] => (passesGradients(n) ? inputsOf(n).map((input) => expressionOf(input) ?? input) : []);
    if (!topological([expression], behind).some(isWanted)) return;
    throw new HistoryError(
      `grad: a ${describe(node)} value was computed outside of the compiled function from a tensor that gradients are asked for. Compute it inside, or use detach() on it.`,
      node.shape,
    );
  }
  const mayMiss = wrt.some((t) => (t.home ? history.mayComeFrom(t.home) : !reached.has(t.node)));
  if (!mayMiss) return;
  const fact =
    history.reason === "overwritten"
      ? "was computed from a tensor that has been changed in place (assigned to) since it was read"
      : "was read so long ago, or at such a shortage of memory, that the expression behind it was let go";
  throw new HistoryError(
    `grad: the loss depends on a ${describe(node)} value that ${fact}. Take gradients before that, or use detach() on the value if none goes through it.`,
    node.shape,
  );
}

function describe({ dtype, shape }: Node): string {
  return `${dtype} ${showShape(shape)}`;
}
