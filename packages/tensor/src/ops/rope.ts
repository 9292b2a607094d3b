import { tensor } from "../graph/create.js";
import type { Tensor } from "../graph/tensor.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import { flip } from "./movement.js";

/**
 * Rotary position embedding (Su et al. 2021) in the half-split layout of transformers' Llama: x · cos + rotateHalf(x) · sin.
 * x [..., seq, headDim]; cos and sin [seq, headDim / 2], or with leading axes that broadcast to x's.
 */
export function rope(x: Tensor, cos: Tensor, sin: Tensor): Tensor {
  const width = x.shape[x.rank - 1] ?? 0;
  if (width % 2 !== 0 || cos.shape[cos.rank - 1] !== width / 2) {
    throw new ShapeError(`rope: cos ${showShape(cos.shape)} does not hold half of the last axis of ${showShape(x.shape)}.`, [
      x.shape,
      cos.shape,
    ]);
  }
  const half = width / 2;
  const halves = x.reshape([...x.shape.slice(0, -1), 2, half]);
  const sign = tensor([[-1], [1]], { device: x.device });
  const spread = (t: Tensor): Tensor => t.reshape([...t.shape.slice(0, -1), 1, half]);
  return halves
    .mul(spread(cos))
    .add(flip(halves, -2).mul(sign).mul(spread(sin)))
    .reshape(x.shape);
}
