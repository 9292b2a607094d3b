import type { Backend } from "../graph/backend.js";
import { compositeDefinition } from "../graph/composites.js";
import type { Node } from "../graph/node.js";
import { isComputedAsRead } from "./operands.js";

/** True when the backend runs the composite with a kernel of its own, and has memory for what it reads. */
export function isNative(node: Node & { op: "composite" }, backend: Backend): boolean {
  const { operands = [] } = compositeDefinition(node.name);
  if (operands.some((index) => isComputedAsRead(node.inputs[index] as Node))) return false; // its own inputs
  return backend.supports({
    kind: "composite",
    name: node.name,
    attributes: node.attributes,
    inputs: node.inputs.map((_, i) => i),
    inputShapes: node.inputs.map((input) => input.shape),
    outputs: node.outputs.map((_, i) => i),
    outputShapes: node.outputs.map((output) => output.shape),
    hasBodies: node.bodies !== undefined,
  });
}
