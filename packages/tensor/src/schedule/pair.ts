import type { Backend } from "../graph/backend.js";
import type { Node } from "../graph/node.js";
import { type NumberedGraph, orderOf } from "../graph/numbered.js";
import { isNative } from "./native.js";

type Composite = Node & { readonly op: "composite" };

/** A composite that does the work of two, and where in its results those of one of them begin. */
export interface Pair {
  /** Over the inputs of these numbers; those that its node names are no others, but may be other nodes. */
  readonly both: Composite;
  readonly inputs: readonly number[];
  readonly shift: number;
}

/** Composites that become one, by their numbers, and what the first of each pair waits for then. */
export interface Pairs {
  readonly joint: ReadonlyMap<number, Pair>;
  readonly after: ReadonlyMap<number, number>;
}

/** The numbers of what a node reads. */
function inputsOf({ starts, inputs }: NumberedGraph, number: number): number[] {
  return [...inputs.subarray(starts[number], starts[number + 1])];
}

/**
 * A linear cross-entropy and its gradient are one composite where the backend has a kernel for both at once, and the gradient of the loss
 * does not depend on the loss itself.
 */
export function pairsIn(graph: NumberedGraph, backend: Backend): Pairs {
  const joint = new Map<number, Pair>();
  const after = new Map<number, number>();
  const { nodes } = graph;
  for (let number = 0; number < nodes.length; number++) {
    const backward = nodes[number] as Node; // within bounds
    if (backward.op !== "composite" || backward.name !== "linearCrossEntropyBackward") continue;
    const given = inputsOf(graph, number);
    const [hidden, weight, labels, total, dLoss, ...captures] = given as [number, number, number, number, number, ...number[]];
    const [first] = inputsOf(graph, total);
    const forward = first === undefined ? undefined : graph.nodes[first];
    if (first === undefined || graph.node(total).op !== "output" || joint.has(first)) continue;
    if (forward?.op !== "composite" || forward.name !== "linearCrossEntropy") continue;
    const read = inputsOf(graph, first);
    if ([hidden, weight, labels, ...captures].some((input, i) => read[i] !== input)) continue;
    if (forward.bodies?.[0] !== backward.bodies?.[0]) continue;
    if (orderOf(graph, [dLoss], after).includes(first)) continue;
    const inputs = [hidden, weight, labels, dLoss, ...captures];
    const both: Composite = {
      ...forward,
      name: "linearCrossEntropyTraining",
      inputs: inputs.map((input) => graph.node(input)),
      attributes: backward.attributes,
      ...(backward.bodies && { bodies: backward.bodies }),
      outputs: [...forward.outputs, ...backward.outputs],
    };
    if (!isNative(both, backend)) continue;
    after.set(first, dLoss);
    joint.set(first, { both, inputs, shift: 0 });
    joint.set(number, { both, inputs, shift: forward.outputs.length });
  }
  return { joint, after };
}
