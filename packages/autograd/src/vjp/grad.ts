import { full, isFloat, ShapeError, showShape, Tensor, untracked } from "@lowrank/tensor";
import { pullback } from "./pullback.js";

/** A loss and its gradients. */
export interface ValueAndGrad {
  readonly value: Tensor;
  readonly gradients: Tensor[];
}

/**
 * Gradients of a scalar with respect to tensors that it was computed from: one f32 tensor for each of `wrt`, in their order and shapes,
 * zeros where the loss does not depend on one. Lazy, graph to graph: the result may be differentiated again. What is not in `wrt` gets no
 * gradient nodes. `detach` stops it; reading the loss, or a value on the way, does not. torch.autograd.grad(create_graph=True), jax.grad.
 * Throws ShapeError when the loss is not one number, when it is data and not an expression, or when an element of `wrt` is not of a float
 * dtype; HistoryError when the loss was computed from a tensor of `wrt` that was assigned to since, or from a value whose expression
 * is gone.
 */
export function grad(loss: Tensor, wrt: readonly Tensor[]): Tensor[] {
  if (loss.size !== 1 || !isFloat(loss.dtype)) {
    throw new ShapeError(`grad: the loss is ${loss.dtype} ${showShape(loss.shape)}, not one float. Take its mean() or sum() first.`, [
      loss.shape,
    ]);
  }
  for (const [i, t] of wrt.entries()) {
    if (!isFloat(t.dtype))
      throw new ShapeError(`grad: tensor ${i} of wrt is ${t.dtype}. Gradients exist for f32, f16 and bf16 only.`, [t.shape]);
  }
  if (
    loss.node.op === "buffer" &&
    !loss.node.history &&
    wrt.length > 0 &&
    !wrt.some((t) => t.storage !== null && t.storage === loss.storage)
  ) {
    throw new ShapeError("grad: the loss is data and not an expression. Compute it from the tensors that gradients are asked for.", [
      loss.shape,
    ]);
  }
  const dLoss = full(loss.shape, 1, { device: loss.device });
  const gradients = untracked(() =>
    pullback(
      [loss.node],
      [dLoss],
      wrt.map((t) => t.node),
      loss.device,
      undefined,
      wrt,
    ),
  );
  return wrt.map((t, i) => {
    const gradient = gradients[i];
    return gradient ? new Tensor(gradient.node, t.device) : full(t.shape, 0, { device: t.device });
  });
}

/**
 * A loss and its gradients together. `loss` is a scalar, or a function that is given `wrt` and returns one:
 * `valueAndGrad((w) => x.matmul(w).square().mean(), [w])`. jax.value_and_grad. Throws what `grad` throws.
 */
export function valueAndGrad(loss: Tensor | ((...wrt: readonly Tensor[]) => Tensor), wrt: readonly Tensor[]): ValueAndGrad {
  const value = typeof loss === "function" ? loss(...wrt) : loss;
  return { value, gradients: grad(value, wrt) };
}
