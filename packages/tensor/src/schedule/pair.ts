import type { Backend } from "../backends/backend.js";
import { liveInputs } from "../graph/live.js";
import { inputsOf, type Node, topological, withInputs } from "../graph/node.js";
import { isNative } from "./canonical.js";

type Composite = Node & { readonly op: "composite" };

/**
 * A linear cross-entropy and its gradient become one composite where the backend has a kernel for both at once, and the gradient of the
 * loss does not depend on the loss itself. Returns the roots in order.
 */
export function paired(roots: readonly Node[], backend: Backend): readonly Node[] {
  const order = topological(roots, liveInputs);
  const joint = new Map<Composite, { readonly both: Composite; readonly shift: number }>();
  // What a forward pass waits for once it computes the gradient as well.
  const waits = new Map<Node, Node>();
  const inputs = (node: Node): readonly Node[] => {
    const further = waits.get(node);
    return further ? [...liveInputs(node), further] : liveInputs(node);
  };
  for (const backward of order) {
    if (backward.op !== "composite" || backward.name !== "linearCrossEntropyBackward") continue;
    const [hidden, weight, labels, total, dLoss, ...captures] = backward.inputs as [Node, Node, Node, Node, Node, ...Node[]];
    const forward = total.op === "output" && liveInputs(total).length > 0 ? total.of : null;
    if (forward?.name !== "linearCrossEntropy" || waits.has(forward)) continue;
    if ([hidden, weight, labels, ...captures].some((input, i) => forward.inputs[i] !== input)) continue;
    if (forward.bodies?.[0] !== backward.bodies?.[0]) continue;
    if (topological([dLoss], inputs).includes(forward)) continue;
    const both: Composite = {
      ...forward,
      name: "linearCrossEntropyTraining",
      inputs: [hidden, weight, labels, dLoss, ...captures],
      attributes: backward.attributes,
      ...(backward.bodies && { bodies: backward.bodies }),
      outputs: [...forward.outputs, ...backward.outputs],
    };
    if (!isNative(both, backend)) continue;
    waits.set(forward, dLoss);
    joint.set(forward, { both, shift: 0 });
    joint.set(backward, { both, shift: forward.outputs.length });
  }
  if (joint.size === 0) return roots;

  const made = new Map<Node, Node>();
  const now = (node: Node): Node => made.get(node) ?? node;
  for (const node of topological(roots, inputs)) {
    if (liveInputs(node).length === 0) continue;
    const pair = node.op === "output" ? joint.get(node.of) : node.op === "composite" ? joint.get(node) : undefined;
    if (!pair) {
      const old = inputsOf(node);
      if (old.some((input) => made.has(input))) made.set(node, withInputs(node, old.map(now)));
    } else if (node.op === "output") {
      made.set(node, { ...node, of: now(pair.both) as Composite, index: pair.shift + node.index });
    } else if (!made.has(pair.both)) {
      made.set(pair.both, { ...pair.both, inputs: pair.both.inputs.map(now) });
    }
  }
  return roots.map(now);
}
