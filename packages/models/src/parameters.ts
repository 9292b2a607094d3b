import { CheckpointError, type Shape, showValue, type Tensor } from "@lowrank/tensor";

/** How a parameter starts when a model is trained from nothing; normal has the config's `initializer_range`, times `scale`. */
export type ParameterInit = { readonly kind: "zeros" | "ones" } | { readonly kind: "normal"; readonly scale: number };

/** A parameter that an architecture needs. */
export interface ParameterSpec {
  readonly shape: Shape;
  readonly init: ParameterInit;
}

export const zeros: ParameterInit = { kind: "zeros" };
export const ones: ParameterInit = { kind: "ones" };
export const normal: ParameterInit = { kind: "normal", scale: 1 };

/** Tensors by checkpoint name, taken while a model is put together. */
export class Weights {
  constructor(
    private readonly tensors: ReadonlyMap<string, Tensor>,
    private readonly prefix: string = "",
  ) {}

  /** The tensors below a dotted name. */
  at(name: string): Weights {
    return new Weights(this.tensors, `${this.prefix}${name}.`);
  }

  /** Throws CheckpointError when there is none. */
  get(name: string): Tensor {
    const found = this.optional(name);
    if (!found)
      throw new CheckpointError(`The tensor "${this.prefix}${name}" is missing. Fetch the checkpoint again.`, `${this.prefix}${name}`);
    return found;
  }

  optional(name: string): Tensor | null {
    return this.tensors.get(this.prefix + name) ?? null;
  }
}

/** Throws CheckpointError for a dtype, or another choice, that weights cannot be stored as. `what` names the call. */
export function checkWeightDType(dtype: string, choices: readonly string[], what: string): void {
  if (choices.includes(dtype)) return;
  throw new CheckpointError(
    `${what}: weights cannot be stored as ${showValue(dtype)}. Choose a \`dtype\` among ${choices.join(", ")}.`,
    what,
  );
}
