import type { Attributes, Node } from "../graph/node.js";
import type { DType } from "../tensor/dtype.js";
import type { Shape } from "../tensor/shape.js";
import { checkSameDevice, Tensor } from "../tensor/tensor.js";

/** A result of a composite primitive. */
export interface CompositeOutput {
  readonly shape: Shape;
  readonly dtype: DType;
}

/**
 * A primitive that deserves a kernel of its own. `decompose` says what it computes in terms of the others: backends without such a
 * kernel run that, the reference interpreter evaluates it, and higher derivatives differentiate it.
 */
export interface CompositeDefinition {
  readonly outputs: (inputs: readonly Shape[], attributes: Attributes) => readonly CompositeOutput[];
  readonly decompose: (inputs: readonly Tensor[], attributes: Attributes) => readonly Tensor[];
  /**
   * Set for a function of one tensor, element by element, which is never a kernel of its own. Its gradient is dy times its slope: as a
   * factor that needs no dy, the slope may be computed where the function is.
   */
  readonly isElementwise?: true;
}

const definitions = new Map<string, CompositeDefinition>();

/** Makes a composite known under a name and returns the function that records it. */
export function defineComposite(
  name: string,
  definition: CompositeDefinition,
): (inputs: readonly Tensor[], attributes: Attributes) => Tensor[] {
  definitions.set(name, definition);
  return (inputs, attributes) => {
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
      shape: main.shape,
      dtype: main.dtype,
    };
    return outputs.map(
      (output, index) => new Tensor({ op: "output", of: node, index, shape: output.shape, dtype: output.dtype }, first.device),
    );
  };
}

/** The definition behind a composite node. */
export function compositeDefinition(name: string): CompositeDefinition {
  const found = definitions.get(name);
  if (!found) throw new Error(`No composite primitive is called ${name}.`);
  return found;
}
