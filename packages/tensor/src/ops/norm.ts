import type { Tensor } from "../graph/tensor.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import { mean } from "./reduce.js";

function checkWidth(what: string, x: Tensor, weight: Tensor): void {
  if (weight.rank !== 1 || weight.shape[0] !== x.shape[x.rank - 1]) {
    throw new ShapeError(`${what}: weight ${showShape(weight.shape)} does not fit the last axis of ${showShape(x.shape)}.`, [
      weight.shape,
      x.shape,
    ]);
  }
}

/** x / √(mean(x²) + eps) · weight over the last axis (Zhang & Sennrich 2019). x [..., width], weight [width]; f32. torch.nn.functional.rms_norm. */
export function rmsNorm(x: Tensor, weight: Tensor, eps = 1e-5): Tensor {
  checkWidth("rmsNorm", x, weight);
  return x.mul(mean(x.mul(x), -1, { keepDims: true }).add(eps).rsqrt()).mul(weight);
}

/** (x − mean) / √(variance + eps) · weight + bias over the last axis (Ba et al. 2016). x [..., width]; f32. torch.nn.functional.layer_norm. */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor | null, eps = 1e-5): Tensor {
  checkWidth("layerNorm", x, weight);
  const centred = x.sub(mean(x, -1, { keepDims: true }));
  const scaled = centred.mul(mean(centred.mul(centred), -1, { keepDims: true }).add(eps).rsqrt()).mul(weight);
  return bias ? scaled.add(bias) : scaled;
}
