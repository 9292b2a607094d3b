import { Tensor } from "../graph/tensor.js";
import type { DType } from "../tensor/dtype.js";
import type { Shape } from "../tensor/shape.js";
import * as activation from "./activation.js";
import type { TensorLike } from "./elementwise.js";
import * as elementwise from "./elementwise.js";
import { gather } from "./gather.js";
import { matmul } from "./matmul.js";
import type { SliceRange } from "./movement.js";
import * as movement from "./movement.js";
import type { ReduceOptions } from "./reduce.js";
import * as reductions from "./reduce.js";

/** The operations as methods of a tensor, which itself is the handle alone: no folder below this one knows an operation. */
export class TensorMethods {
  cast(this: Tensor, dtype: DType): Tensor {
    return elementwise.cast(this, dtype);
  }

  add(this: Tensor, other: TensorLike): Tensor {
    return elementwise.add(this, other);
  }
  sub(this: Tensor, other: TensorLike): Tensor {
    return elementwise.sub(this, other);
  }
  mul(this: Tensor, other: TensorLike): Tensor {
    return elementwise.mul(this, other);
  }
  div(this: Tensor, other: TensorLike): Tensor {
    return elementwise.div(this, other);
  }
  intDivide(this: Tensor, other: TensorLike): Tensor {
    return elementwise.intDivide(this, other);
  }
  mod(this: Tensor, other: TensorLike): Tensor {
    return elementwise.mod(this, other);
  }
  pow(this: Tensor, exponent: TensorLike): Tensor {
    return elementwise.pow(this, exponent);
  }
  maximum(this: Tensor, other: TensorLike): Tensor {
    return elementwise.maximum(this, other);
  }
  minimum(this: Tensor, other: TensorLike): Tensor {
    return elementwise.minimum(this, other);
  }
  less(this: Tensor, other: TensorLike): Tensor {
    return elementwise.less(this, other);
  }
  lessEqual(this: Tensor, other: TensorLike): Tensor {
    return elementwise.lessEqual(this, other);
  }
  greater(this: Tensor, other: TensorLike): Tensor {
    return elementwise.greater(this, other);
  }
  greaterEqual(this: Tensor, other: TensorLike): Tensor {
    return elementwise.greaterEqual(this, other);
  }
  equal(this: Tensor, other: TensorLike): Tensor {
    return elementwise.equal(this, other);
  }
  notEqual(this: Tensor, other: TensorLike): Tensor {
    return elementwise.notEqual(this, other);
  }
  and(this: Tensor, other: TensorLike): Tensor {
    return elementwise.and(this, other);
  }
  or(this: Tensor, other: TensorLike): Tensor {
    return elementwise.or(this, other);
  }
  xor(this: Tensor, other: TensorLike): Tensor {
    return elementwise.xor(this, other);
  }
  shiftLeft(this: Tensor, bits: TensorLike): Tensor {
    return elementwise.shiftLeft(this, bits);
  }
  shiftRight(this: Tensor, bits: TensorLike): Tensor {
    return elementwise.shiftRight(this, bits);
  }
  /** `a` where this condition holds, else `b`. */
  where(this: Tensor, a: TensorLike, b: TensorLike): Tensor {
    return elementwise.where(this, a, b);
  }

  neg(this: Tensor): Tensor {
    return elementwise.neg(this);
  }
  abs(this: Tensor): Tensor {
    return elementwise.abs(this);
  }
  not(this: Tensor): Tensor {
    return elementwise.logicalNot(this);
  }
  exp(this: Tensor): Tensor {
    return elementwise.exp(this);
  }
  log(this: Tensor): Tensor {
    return elementwise.log(this);
  }
  sqrt(this: Tensor): Tensor {
    return elementwise.sqrt(this);
  }
  rsqrt(this: Tensor): Tensor {
    return elementwise.rsqrt(this);
  }
  reciprocal(this: Tensor): Tensor {
    return elementwise.reciprocal(this);
  }
  square(this: Tensor): Tensor {
    return elementwise.square(this);
  }
  sin(this: Tensor): Tensor {
    return elementwise.sin(this);
  }
  cos(this: Tensor): Tensor {
    return elementwise.cos(this);
  }
  tanh(this: Tensor): Tensor {
    return elementwise.tanh(this);
  }
  erf(this: Tensor): Tensor {
    return elementwise.erf(this);
  }
  floor(this: Tensor): Tensor {
    return elementwise.floor(this);
  }
  ceil(this: Tensor): Tensor {
    return elementwise.ceil(this);
  }
  sign(this: Tensor): Tensor {
    return elementwise.sign(this);
  }
  isNaN(this: Tensor): Tensor {
    return elementwise.isNan(this);
  }
  clamp(this: Tensor, low: number, high: number): Tensor {
    return elementwise.clamp(this, low, high);
  }
  sigmoid(this: Tensor): Tensor {
    return activation.sigmoid(this);
  }
  relu(this: Tensor): Tensor {
    return activation.relu(this);
  }
  silu(this: Tensor): Tensor {
    return activation.silu(this);
  }
  gelu(this: Tensor, approximate: "none" | "tanh" = "none"): Tensor {
    return activation.gelu(this, approximate);
  }

  sum(this: Tensor, axes?: number | readonly number[], options: ReduceOptions = {}): Tensor {
    return reductions.sum(this, axes, options);
  }
  mean(this: Tensor, axes?: number | readonly number[], options: ReduceOptions = {}): Tensor {
    return reductions.mean(this, axes, options);
  }
  max(this: Tensor, axes?: number | readonly number[], options: ReduceOptions = {}): Tensor {
    return reductions.max(this, axes, options);
  }
  min(this: Tensor, axes?: number | readonly number[], options: ReduceOptions = {}): Tensor {
    return reductions.min(this, axes, options);
  }
  variance(this: Tensor, axes?: number | readonly number[], options: ReduceOptions = {}): Tensor {
    return reductions.variance(this, axes, options);
  }
  argmax(this: Tensor, axis = -1, options: ReduceOptions = {}): Tensor {
    return reductions.argmax(this, axis, options);
  }
  argmin(this: Tensor, axis = -1, options: ReduceOptions = {}): Tensor {
    return reductions.argmin(this, axis, options);
  }
  softmax(this: Tensor, axis = -1): Tensor {
    return reductions.softmax(this, axis);
  }
  logSoftmax(this: Tensor, axis = -1): Tensor {
    return reductions.logSoftmax(this, axis);
  }
  logsumexp(this: Tensor, axis = -1, options: ReduceOptions = {}): Tensor {
    return reductions.logsumexp(this, axis, options);
  }

  reshape(this: Tensor, shape: Shape): Tensor {
    return movement.reshape(this, shape);
  }
  flatten(this: Tensor, from = 0): Tensor {
    return movement.flatten(this, from);
  }
  permute(this: Tensor, order: readonly number[]): Tensor {
    return movement.permute(this, order);
  }
  transpose(this: Tensor, a = -2, b = -1): Tensor {
    return movement.transpose(this, a, b);
  }
  /** The last two axes exchanged. */
  t(this: Tensor): Tensor {
    return movement.transpose(this, -2, -1);
  }
  expand(this: Tensor, shape: Shape): Tensor {
    return movement.expand(this, shape);
  }
  slice(this: Tensor, ...ranges: readonly SliceRange[]): Tensor {
    return movement.slice(this, ranges);
  }
  narrow(this: Tensor, axis: number, start: number, length: number): Tensor {
    return movement.narrow(this, axis, start, length);
  }
  flip(this: Tensor, axis: number): Tensor {
    return movement.flip(this, axis);
  }
  pad(this: Tensor, widths: readonly (readonly [before: number, after: number])[], value = 0): Tensor {
    return movement.pad(this, widths, value);
  }
  squeeze(this: Tensor, axis?: number): Tensor {
    return movement.squeeze(this, axis);
  }
  unsqueeze(this: Tensor, axis: number): Tensor {
    return movement.unsqueeze(this, axis);
  }
  split(this: Tensor, count: number, axis = 0): Tensor[] {
    return movement.split(this, count, axis);
  }
  gather(this: Tensor, indices: Tensor, axis = 0): Tensor {
    return gather(this, indices, axis);
  }
  matmul(this: Tensor, other: Tensor): Tensor {
    return matmul(this, other);
  }
}

declare module "../graph/tensor.js" {
  interface Tensor extends TensorMethods {}
}

const { constructor: _, ...methods } = Object.getOwnPropertyDescriptors(TensorMethods.prototype);
Object.defineProperties(Tensor.prototype, methods);
