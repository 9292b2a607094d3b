import { ShapeError, showShape } from "./errors.js";

/** Sizes of the axes, outermost first. [] is a scalar. */
export type Shape = readonly number[];

/** Number of elements; 1 for a scalar. */
export function sizeOf(shape: Shape): number {
  let product = 1;
  for (let axis = 0; axis < shape.length; axis++) product *= shape[axis] as number; // within bounds
  return product;
}

/** Row-major strides in elements. */
export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= shape[axis] ?? 1;
  }
  return strides;
}

/** True when both have the same rank and sizes. */
export function sameShape(a: Shape, b: Shape): boolean {
  if (a.length !== b.length) return false;
  for (let axis = 0; axis < a.length; axis++) if (a[axis] !== b[axis]) return false;
  return true;
}

/** The shape of `a op b` after numpy broadcasting. Throws ShapeError naming both shapes. */
export function broadcastShapes(a: Shape, b: Shape, what: string): Shape {
  if (sameShape(a, b)) return a;
  const rank = Math.max(a.length, b.length);
  const result = new Array<number>(rank);
  for (let i = 1; i <= rank; i++) {
    const x = a[a.length - i] ?? 1;
    const y = b[b.length - i] ?? 1;
    if (x !== y && x !== 1 && y !== 1) {
      throw new ShapeError(
        `${what}: shapes do not broadcast: ${showShape(a)} and ${showShape(b)} (${x} vs ${y} at axis -${i}). Reshape or expand one of them so that each pair of sizes is equal or 1.`,
        [a, b],
      );
    }
    result[rank - i] = x === 1 ? y : x;
  }
  return result;
}

/** An axis number counted from either end → 0 … rank-1. Throws ShapeError when out of range. */
export function normalizeAxis(axis: number, rank: number, what: string): number {
  const result = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(axis) || result < 0 || result >= rank) {
    throw new ShapeError(`${what}: axis ${axis} is out of range for a tensor of rank ${rank}. Use ${-rank} to ${rank - 1}.`);
  }
  return result;
}

/** Checks that every size is a non-negative integer. Throws ShapeError. */
export function checkShape(shape: Shape, what: string): void {
  for (const size of shape) {
    if (!Number.isInteger(size) || size < 0) {
      throw new ShapeError(`${what}: ${showShape(shape)} is not a shape. Sizes are integers of at least 0.`, [shape]);
    }
  }
}
