import { addComposite, type CompositeDefinition } from "../graph/composites.js";
import type { Attributes, Node } from "../graph/node.js";
import { checkSameDevice, Tensor } from "../graph/tensor.js";

/** Makes a composite known under a name and returns the function that records it. */
export function defineComposite(
  name: string,
  definition: CompositeDefinition,
): (inputs: readonly Tensor[], attributes: Attributes, bodies?: readonly Node[]) => Tensor[] {
  addComposite(name, definition);
  return (inputs, attributes, bodies = []) => {
    const [first] = inputs;
    if (!first) throw new Error(`${name}: a composite needs inputs.`);
    checkSameDevice(name, ...inputs);
    const outputs = definition.outputs(
      inputs.map((input) => input.shape),
      attributes,
    );
    const main = outputs[0] ?? { shape: [], dtype: "f32" as const };
    const node: Node & { op: "composite" } = {
      op: "composite",
      name,
      inputs: inputs.map((input) => input.node),
      attributes,
      outputs,
      ...(bodies.length > 0 && { bodies }),
      shape: main.shape,
      dtype: main.dtype,
    };
    return outputs.map(
      (output, index) => new Tensor({ op: "output", of: node, index, shape: output.shape, dtype: output.dtype }, first.device),
    );
  };
}
