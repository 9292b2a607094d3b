import { sigmoid, softplus, type Tensor } from "@lowrank/tensor";

export type ActivationName =
  | "gelu"
  | "gelu_new"
  | "gelu_pytorch_tanh"
  | "gelu_fast"
  | "gelu_accurate"
  | "gelu_python"
  | "gelu_python_tanh"
  | "linear"
  | "mish"
  | "quick_gelu"
  | "relu"
  | "relu2"
  | "relu6"
  | "sigmoid"
  | "silu"
  | "swish"
  | "tanh";

/** Activation functions by the names that config.json uses. */
export const activations: Readonly<Record<ActivationName, (x: Tensor) => Tensor>> = {
  gelu: (x: Tensor): Tensor => x.gelu("none"),
  gelu_new: (x: Tensor): Tensor => x.gelu("tanh"),
  gelu_pytorch_tanh: (x: Tensor): Tensor => x.gelu("tanh"),
  gelu_fast: (x: Tensor): Tensor => x.gelu("tanh"),
  gelu_accurate: (x: Tensor): Tensor => x.gelu("tanh"),
  gelu_python: (x: Tensor): Tensor => x.gelu("none"),
  gelu_python_tanh: (x: Tensor): Tensor => x.gelu("tanh"),
  linear: (x: Tensor): Tensor => x,
  mish: (x: Tensor): Tensor => x.mul(softplus(x).tanh()),
  quick_gelu: (x: Tensor): Tensor => x.mul(sigmoid(x.mul(1.702))),
  relu: (x: Tensor): Tensor => x.relu(),
  relu2: (x: Tensor): Tensor => x.relu().mul(x.relu()),
  relu6: (x: Tensor): Tensor => x.relu().minimum(6),
  sigmoid: (x: Tensor): Tensor => sigmoid(x),
  silu: (x: Tensor): Tensor => x.silu(),
  swish: (x: Tensor): Tensor => x.silu(),
  tanh: (x: Tensor): Tensor => x.tanh(),
};

export const activationNames: readonly ActivationName[] = Object.keys(activations) as ActivationName[];
