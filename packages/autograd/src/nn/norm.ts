import { type Device, encode, fromBytes, layerNorm, rmsNorm, type Tensor } from "@lowrank/tensor";
import { Module, parameter } from "./module.js";

/** (x − mean) / √(variance + eps) · weight + bias over the last axis (Ba et al. 2016). torch.nn.LayerNorm. */
export class LayerNorm extends Module {
  /** [width]. */
  weight: Tensor;
  /** [width]. */
  bias: Tensor | null;

  constructor(
    weight: Tensor,
    bias: Tensor | null = null,
    readonly eps: number = 1e-5,
  ) {
    super();
    this.weight = parameter(weight);
    this.bias = bias && parameter(bias);
  }

  /** Weight 1, bias 0. */
  static init(width: number, options: { readonly device: Device; readonly bias?: boolean; readonly eps?: number }): LayerNorm {
    const bias = (options.bias ?? true) ? filled(width, 0, options.device) : null;
    return new LayerNorm(filled(width, 1, options.device), bias, options.eps);
  }

  /** x [..., width] → the same shape, f32. Throws ShapeError when the last axis is not `width`. */
  forward(x: Tensor): Tensor {
    return this.through(x, (input) => layerNorm(input, this.weight, this.bias, this.eps));
  }
}

/** x / √(mean(x²) + eps) · weight over the last axis (Zhang & Sennrich 2019). torch.nn.RMSNorm. */
export class RMSNorm extends Module {
  /** [width]. */
  weight: Tensor;

  constructor(
    weight: Tensor,
    readonly eps: number = 1e-5,
  ) {
    super();
    this.weight = parameter(weight);
  }

  /** Weight 1. */
  static init(width: number, options: { readonly device: Device; readonly eps?: number }): RMSNorm {
    return new RMSNorm(filled(width, 1, options.device), options.eps);
  }

  /** x [..., width] → the same shape, f32. Throws ShapeError when the last axis is not `width`. */
  forward(x: Tensor): Tensor {
    return this.through(x, (input) => rmsNorm(input, this.weight, this.eps));
  }
}

function filled(width: number, value: number, device: Device): Tensor {
  return fromBytes(encode(new Float32Array(width).fill(value), "f32"), "f32", [width], device);
}
