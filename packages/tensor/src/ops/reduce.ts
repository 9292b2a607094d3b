import type { ReduceKind } from "../elementwise/reduce.js";
import { Tensor } from "../graph/tensor.js";
import { computeDType, isFloat } from "../tensor/dtype.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import { normalizeAxis, sizeOf } from "../tensor/shape.js";
import { clamp, exp, isNan, log, mul, sub } from "./elementwise.js";
import { reshape } from "./movement.js";

/** Which axes to reduce (all when absent) and whether they stay with size 1. */
export interface ReduceOptions {
  readonly keepDims?: boolean;
}

type Axes = number | readonly number[] | undefined;

function axesOf(x: Tensor, axes: Axes, what: string): number[] {
  if (axes === undefined) return x.shape.map((_, axis) => axis);
  const list = typeof axes === "number" ? [axes] : axes;
  return [...new Set(list.map((axis) => normalizeAxis(axis, x.rank, what)))].sort((a, b) => a - b);
}

function reduce(kind: ReduceKind, x: Tensor, axes: Axes, options: ReduceOptions): Tensor {
  const over = axesOf(x, axes, kind);
  const type = computeDType(x.dtype) === "bool" ? "i32" : computeDType(x.dtype);
  const source = x.cast(type).node;
  const kept = x.shape.map((size, axis) => (over.includes(axis) ? 1 : size));
  if (kind !== "sum" && over.some((axis) => x.shape[axis] === 0)) {
    throw new ShapeError(
      `${kind}: an axis of ${showShape(x.shape)} is empty and has no ${kind === "max" ? "largest" : "smallest"} element.`,
      [x.shape],
    );
  }
  const reduced =
    over.length === 0
      ? new Tensor(source, x.device)
      : new Tensor({ op: "reduce", kind, x: source, axes: over, shape: kept, dtype: type }, x.device);
  return options.keepDims
    ? reduced
    : reshape(
        reduced,
        x.shape.filter((_, axis) => !over.includes(axis)),
      );
}

/** Sum over axes. f32 sums accumulate in several partial sums (error grows as √n); bool counts as i32. torch.sum. */
export const sum = (x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor => reduce("sum", x, axes, options);
/** Largest element over axes; NaN if any is. torch.amax. */
export const max = (x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor => reduce("max", x, axes, options);
/** Smallest element over axes; NaN if any is. torch.amin. */
export const min = (x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor => reduce("min", x, axes, options);

/** Arithmetic mean over axes, f32. torch.mean. */
export function mean(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  const count = sizeOf(axesOf(x, axes, "mean").map((axis) => x.shape[axis] ?? 1));
  return mul(sum(x.cast("f32"), axes, options), 1 / count);
}

/** Variance over axes: the mean squared distance from the mean (divided by n, torch.var with correction=0). */
export function variance(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  const centred = sub(x, mean(x, axes, { keepDims: true }));
  return mean(mul(centred, centred), axes, options);
}

/** Position of the first element along an axis that is the extremum, or NaN where there is one. */
function firstOf(kind: "max" | "min", x: Tensor, axis: number, options: ReduceOptions): Tensor {
  const at = normalizeAxis(axis, x.rank, `arg${kind}`);
  const length = x.shape[at] ?? 1;
  const position = new Tensor({ op: "iota", axis: at, shape: x.shape, dtype: "i32" }, x.device);
  const isExtremum = x.equal(reduce(kind, x, at, { keepDims: true }));
  // With a NaN the extremum is NaN, which equals nothing.
  const isFound = isFloat(x.dtype) ? isExtremum.or(isNan(x)) : isExtremum;
  return sub(length, max(isFound.where(sub(length, position), 0), at, options));
}

/** Position of the first largest element along an axis, or of the first NaN, i32. torch.argmax. */
export const argmax = (x: Tensor, axis = -1, options: ReduceOptions = {}): Tensor => firstOf("max", x, axis, options);
/** Position of the first smallest element along an axis, or of the first NaN, i32. torch.argmin. */
export const argmin = (x: Tensor, axis = -1, options: ReduceOptions = {}): Tensor => firstOf("min", x, axis, options);

const largestFloat = (2 - 2 ** -23) * 2 ** 127;

/** log Σ exp x along an axis, without overflow; −∞ where all are −∞. torch.logsumexp. */
export function logsumexp(x: Tensor, axis = -1, options: ReduceOptions = {}): Tensor {
  const at = normalizeAxis(axis, x.rank, "logsumexp");
  const values = x.cast("f32");
  // An infinite maximum would be subtracted from itself.
  const largest = clamp(max(values, at, { keepDims: true }), -largestFloat, largestFloat).detach();
  const total = log(sum(exp(sub(values, largest)), at, { keepDims: true })).add(largest);
  return options.keepDims
    ? total
    : reshape(
        total,
        x.shape.filter((_, i) => i !== at),
      );
}

/** exp(x) / Σ exp(x) along an axis. torch.softmax. */
export function softmax(x: Tensor, axis = -1): Tensor {
  const largest = max(x, axis, { keepDims: true }).detach();
  const weights = exp(sub(x, largest));
  return weights.div(sum(weights, axis, { keepDims: true }));
}

/** log softmax(x) along an axis. torch.log_softmax. */
export function logSoftmax(x: Tensor, axis = -1): Tensor {
  const centred = sub(x, max(x, axis, { keepDims: true }).detach());
  return sub(centred, log(sum(exp(centred), axis, { keepDims: true })));
}
