import type { Tensor } from "@lowrank/tensor";

export type ActivationName = "gelu" | "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "relu" | "relu2" | "silu" | "swish" | "tanh";

/** Activation functions by the names that config.json uses. */
export const activations: Readonly<Record<ActivationName, (x: Tensor) => Tensor>> = {
  gelu: (x: Tensor): Tensor => x.gelu("none"),
  gelu_new: (x: Tensor): Tensor => x.gelu("tanh"),
  gelu_pytorch_tanh: (x: Tensor): Tensor => x.gelu("tanh"),
  gelu_fast: (x: Tensor): Tensor => x.gelu("tanh"),
  relu: (x: Tensor): Tensor => x.relu(),
  relu2: (x: Tensor): Tensor => x.relu().mul(x.relu()),
  silu: (x: Tensor): Tensor => x.silu(),
  swish: (x: Tensor): Tensor => x.silu(),
  tanh: (x: Tensor): Tensor => x.tanh(),
};

export const activationNames: readonly ActivationName[] = Object.keys(activations) as ActivationName[];
