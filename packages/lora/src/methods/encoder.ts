import { nn } from "@lowrank/autograd";
import type { Generator, Tensor } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";

/** Tensors by their names in torch. */
export type NamedTensors = Readonly<Record<string, Tensor>>;

/** The tensor of a name. Throws AdapterError where there is none. */
export function parameterOf(parameters: NamedTensors, name: string): Tensor {
  const found = parameters[name];
  if (!found) throw new AdapterError(`There is no parameter "${name}" among ${Object.keys(parameters).join(", ")}.`);
  return found;
}

/** `name.weight` [out, in] and `name.bias` [out] with the first values of torch.nn.Linear, uniform in ±1/√in. */
export function dense(name: string, inFeatures: number, outFeatures: number, generator: Generator): NamedTensors {
  const bound = 1 / Math.sqrt(inFeatures);
  return {
    [`${name}.weight`]: nn.kaimingUniform([outFeatures, inFeatures], { generator }),
    [`${name}.bias`]: generator.uniform([outFeatures], -bound, bound),
  };
}

/** x Wᵀ + b with the tensors of `dense`: [..., in] → [..., out]. */
export function throughDense(parameters: NamedTensors, name: string, x: Tensor): Tensor {
  return x.matmul(parameterOf(parameters, `${name}.weight`).t()).add(parameterOf(parameters, `${name}.bias`));
}
