import { type Device, DeviceError, type Generator, realizeNow, ShapeError, showShape, type Tensor } from "@lowrank/tensor";
import { kaimingUniform, uniform } from "./init.js";
import { Module, parameter } from "./module.js";

/** How a new layer starts. */
export interface LayerInit {
  /** Random numbers, on the device where the layer shall live. */
  readonly generator: Generator;
  /** The generator's device when absent; may not be another. */
  readonly device?: Device;
}

/** The device of a new layer. Throws DeviceError when it is not the generator's. */
export function initDevice(what: string, { generator, device }: LayerInit): Device {
  if (device && device !== generator.device) {
    throw new DeviceError(
      `${what}: the generator is on ${generator.device.name}, not on ${device.name}. Make a Generator on the layer's device.`,
      device.name,
    );
  }
  return generator.device;
}

/** One of the projections that a fused layer computes: `size` of its outputs from `start` on, in each `period` of them, or once. */
export interface FusedPart {
  readonly name: string;
  readonly start: number;
  readonly size: number;
  readonly period?: number;
}

/** y = x Wᵀ + b over the last axis: x [..., in] → [..., out]. torch.nn.Linear, or transformers' Conv1D when `isTransposed`. */
export class Linear extends Module {
  /** [out, in], or [in, out] when `isTransposed`; as in the checkpoint. */
  weight: Tensor;
  /** [out]. */
  bias: Tensor | null;
  /** True for GPT-2's Conv1D (PEFT's fan_in_fan_out): the weight is [in, out]. */
  readonly isTransposed: boolean;
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** The projections that it computes in one, where it is several; adapters may go on some of them. */
  readonly fusedParts: readonly FusedPart[];

  /** Throws ShapeError when the weight is not a matrix or the bias does not fit it. */
  constructor(
    weight: Tensor,
    bias: Tensor | null = null,
    options: { readonly isTransposed?: boolean; readonly fusedParts?: readonly FusedPart[] } = {},
  ) {
    super();
    this.fusedParts = options.fusedParts ?? [];
    this.isTransposed = options.isTransposed ?? false;
    const [rows = 0, columns = 0] = weight.shape;
    this.inFeatures = this.isTransposed ? rows : columns;
    this.outFeatures = this.isTransposed ? columns : rows;
    if (weight.rank !== 2 || (bias && (bias.rank !== 1 || bias.shape[0] !== this.outFeatures))) {
      throw new ShapeError(
        `Linear: weight ${showShape(weight.shape)} and bias ${bias ? showShape(bias.shape) : "none"} do not fit. Use ${this.isTransposed ? "[in, out]" : "[out, in]"} and [out].`,
        bias ? [weight.shape, bias.shape] : [weight.shape],
      );
    }
    this.weight = parameter(weight);
    this.bias = bias && parameter(bias);
  }

  /** A layer of its own, weight and bias uniform in ±1/√in as torch.nn.Linear starts. */
  static init(inFeatures: number, outFeatures: number, options: LayerInit & { readonly bias?: boolean }): Linear {
    initDevice("Linear.init", options);
    const { generator } = options;
    const bound = 1 / Math.sqrt(Math.max(inFeatures, 1));
    const weight = kaimingUniform([outFeatures, inFeatures], { generator });
    const bias = (options.bias ?? true) ? uniform([outFeatures], { generator, low: -bound, high: bound }) : null;
    realizeNow(bias ? [weight, bias] : [weight]);
    return new Linear(weight, bias);
  }

  /** x [..., in] → [..., out], f32. Throws ShapeError when the last axis is not `inFeatures`. */
  forward(x: Tensor): Tensor {
    return this.through(x, (input) => {
      const product = input.matmul(this.isTransposed ? this.weight : this.weight.t());
      return this.bias ? product.add(this.bias) : product;
    });
  }
}
