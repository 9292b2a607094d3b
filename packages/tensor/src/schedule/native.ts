import type { Backend } from "../graph/backend.js";
import type { Node } from "../graph/node.js";

/** True when the backend runs the composite with a kernel of its own. */
export function isNative(node: Node & { op: "composite" }, backend: Backend): boolean {
  return backend.supports({
    kind: "composite",
    name: node.name,
    attributes: node.attributes,
    inputs: node.inputs.map((_, i) => i),
    inputShapes: node.inputs.map((input) => input.shape),
    outputs: node.outputs.map((_, i) => i),
    outputShapes: node.outputs.map((output) => output.shape),
  });
}
