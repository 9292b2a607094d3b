import type { Backend } from "../graph/backend.js";
import { liveInputs } from "../graph/live.js";
import { type Node, topological } from "../graph/node.js";
import { isNative } from "./native.js";

type Composite = Node & { readonly op: "composite" };

/** A composite that does the work of two, and where in its results those of one of them begin. */
export interface Pair {
  readonly both: Composite;
  readonly shift: number;
}

/** Composites that become one, and what the first of each pair waits for then. */
export class Pairs {
  readonly #joint = new Map<Composite, Pair>();
  readonly #waits = new Map<Node, Node>();

  /** What a node reads, and what it has to come after. */
  readonly inputsOf = (node: Node): readonly Node[] => {
    const further = this.#waits.get(node);
    return further ? [...liveInputs(node), further] : liveInputs(node);
  };

  /** The pair that a composite, or the composite of an output, belongs to. */
  of(node: Node): Pair | undefined {
    return node.op === "output" ? this.#joint.get(node.of) : node.op === "composite" ? this.#joint.get(node) : undefined;
  }

  add(forward: Composite, backward: Composite, both: Composite, waitsFor: Node): void {
    this.#waits.set(forward, waitsFor);
    this.#joint.set(forward, { both, shift: 0 });
    this.#joint.set(backward, { both, shift: forward.outputs.length });
  }
}

export const noPairs: Pairs = new Pairs();

/**
 * A linear cross-entropy and its gradient are one composite where the backend has a kernel for both at once, and the gradient of the loss
 * does not depend on the loss itself.
 */
export function pairsIn(order: readonly Node[], backend: Backend): Pairs {
  const pairs = new Pairs();
  for (const backward of order) {
    if (backward.op !== "composite" || backward.name !== "linearCrossEntropyBackward") continue;
    const [hidden, weight, labels, total, dLoss, ...captures] = backward.inputs as [Node, Node, Node, Node, Node, ...Node[]];
    const forward = total.op === "output" && liveInputs(total).length > 0 ? total.of : null;
    if (forward?.name !== "linearCrossEntropy" || pairs.of(forward)) continue;
    if ([hidden, weight, labels, ...captures].some((input, i) => forward.inputs[i] !== input)) continue;
    if (forward.bodies?.[0] !== backward.bodies?.[0]) continue;
    if (topological([dLoss], pairs.inputsOf).includes(forward)) continue;
    const both: Composite = {
      ...forward,
      name: "linearCrossEntropyTraining",
      inputs: [hidden, weight, labels, dLoss, ...captures],
      attributes: backward.attributes,
      ...(backward.bodies && { bodies: backward.bodies }),
      outputs: [...forward.outputs, ...backward.outputs],
    };
    if (isNative(both, backend)) pairs.add(forward, backward, both, dLoss);
  }
  return pairs;
}
