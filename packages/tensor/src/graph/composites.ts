import type { DType } from "../tensor/dtype.js";
import type { Shape } from "../tensor/shape.js";
import type { Attributes, Node } from "./node.js";
import type { Tensor } from "./tensor.js";

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
  readonly decompose: (inputs: readonly Tensor[], attributes: Attributes, bodies?: readonly Node[]) => readonly Tensor[];
  /**
   * Set for a function of one tensor, element by element, which is never a kernel of its own. Its gradient is dy times its slope: as a
   * factor that needs no dy, the slope may be computed where the function is.
   */
  readonly isElementwise?: true;
  /**
   * Inputs that its decomposition only multiplies with. Where one is an expression that reads much less than it is, a weight in blocks, the composite is
   * decomposed for the products to compute it as they read it: for a kernel of its own it would have to be whole in memory.
   */
  readonly operands?: readonly number[];
}

/** Definitions by name. They are here, in a module that loads no other, because tensors and the composites made of them import each other. */
const definitions = new Map<string, CompositeDefinition>();

export function addComposite(name: string, definition: CompositeDefinition): void {
  definitions.set(name, definition);
}

/** The definition behind a composite node. */
export function compositeDefinition(name: string): CompositeDefinition {
  const found = definitions.get(name);
  if (!found) throw new Error(`No composite primitive is called ${name}.`);
  return found;
}
