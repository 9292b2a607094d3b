import { checkSameDevice, Tensor } from "../graph/tensor.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import { checkShape, normalizeAxis, type Shape, sameShape, sizeOf } from "../tensor/shape.js";

/** Views: no function here computes anything; the scheduler folds them into the index arithmetic of the kernels. */

/** The same elements, in row-major order, in another shape; one size may be -1 (the rest). torch.reshape. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  const unknown = shape.indexOf(-1);
  const known = unknown < 0 ? 0 : sizeOf(shape.filter((size) => size !== -1));
  const target = unknown < 0 ? [...shape] : shape.map((size) => (size === -1 && known > 0 ? x.size / known : size));
  if (sizeOf(target) !== x.size || target.some((size) => !Number.isInteger(size) || size < 0)) {
    throw new ShapeError(
      `reshape: ${showShape(x.shape)} has ${x.size} elements, ${showShape(shape)} does not. Choose sizes whose product is ${x.size} (one may be -1).`,
      [x.shape, shape],
    );
  }
  if (sameShape(target, x.shape)) return x;
  // Also of a reshape: gradients may be asked for by what lies between; the scheduler makes one of both.
  return new Tensor({ op: "reshape", x: x.node, shape: target, dtype: x.dtype }, x.device);
}

/** Axes in another order: axis i of the result is axis `order[i]` of x. torch.permute. */
export function permute(x: Tensor, order: readonly number[]): Tensor {
  const axes = order.map((axis) => normalizeAxis(axis, x.rank, "permute"));
  if (axes.length !== x.rank || axes.some((axis, i) => axes.indexOf(axis) !== i)) {
    throw new ShapeError(`permute: order ${showShape(order)} does not name each of the ${x.rank} axes of ${showShape(x.shape)} once.`, [
      x.shape,
    ]);
  }
  if (axes.every((axis, i) => axis === i)) return x;
  return new Tensor({ op: "permute", x: x.node, order: axes, shape: axes.map((axis) => x.shape[axis] ?? 1), dtype: x.dtype }, x.device);
}

/** Two axes exchanged. torch.transpose. */
export function transpose(x: Tensor, a = -2, b = -1): Tensor {
  const order = x.shape.map((_, axis) => axis);
  const [i, j] = [normalizeAxis(a, x.rank, "transpose"), normalizeAxis(b, x.rank, "transpose")];
  order[i] = j;
  order[j] = i;
  return permute(x, order);
}

/** Sizes of 1 repeated, and axes added in front, to reach `shape`. torch.broadcast_to. */
export function expand(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x;
  checkShape(shape, "expand");
  const added = shape.length - x.rank;
  const fits = added >= 0 && x.shape.every((size, axis) => size === shape[axis + added] || size === 1);
  if (!fits) {
    throw new ShapeError(`expand: ${showShape(x.shape)} does not broadcast to ${showShape(shape)}. Only axes of size 1 can be repeated.`, [
      x.shape,
      shape,
    ]);
  }
  const raised = reshape(x, [...new Array<number>(added).fill(1), ...x.shape]);
  if (sameShape(raised.shape, shape)) return raised;
  // A number; of other constants, gradients may be asked for.
  if (raised.node.op === "const" && x.rank === 0) return new Tensor({ ...raised.node, shape: [...shape] }, x.device);
  return new Tensor({ op: "expand", x: raised.node, shape: [...shape], dtype: x.dtype }, x.device);
}

/** Start, stop (exclusive) and step along one axis as in Python; negative positions count from the end. null takes all. */
export type SliceRange = readonly [start: number, stop?: number, step?: number] | null;

/** Part of a tensor: one range an axis, missing ones take all. numpy basic slicing. */
export function slice(x: Tensor, ranges: readonly SliceRange[]): Tensor {
  if (ranges.length > x.rank) {
    throw new ShapeError(`slice: ${ranges.length} ranges for a tensor of shape ${showShape(x.shape)}. Give at most ${x.rank}.`, [x.shape]);
  }
  const starts: number[] = [];
  const steps: number[] = [];
  const shape = x.shape.map((size, axis) => {
    const [start = 0, stop = size, step = 1] = ranges[axis] ?? [];
    if (!Number.isInteger(step) || step < 1)
      throw new ShapeError(`slice: step ${step} at axis ${axis} is not a positive integer. Use flip() to reverse an axis.`);
    // An infinite one stands for the end.
    if ([start, stop].some((position) => !Number.isInteger(position) && Math.abs(position) !== Number.POSITIVE_INFINITY))
      throw new ShapeError(
        `slice: ${String(start)} to ${String(stop)} at axis ${axis} are not integers. Give [start, stop] for each axis.`,
      );
    const from = Math.min(Math.max(start < 0 ? start + size : start, 0), size);
    const to = Math.min(Math.max(stop < 0 ? stop + size : stop, from), size);
    starts.push(from);
    steps.push(step);
    return Math.ceil((to - from) / step);
  });
  if (sameShape(shape, x.shape)) return x;
  return new Tensor({ op: "slice", x: x.node, starts, steps, shape, dtype: x.dtype }, x.device);
}

/** Elements start … start+length-1 along one axis. torch.narrow. */
export function narrow(x: Tensor, axis: number, start: number, length: number): Tensor {
  const at = normalizeAxis(axis, x.rank, "narrow");
  const size = x.shape[at] ?? 1;
  if (start < 0 || length < 0 || start + length > size) {
    throw new ShapeError(
      `narrow: elements ${start} to ${start + length} are outside axis ${axis} of ${showShape(x.shape)} (size ${size}).`,
      [x.shape],
    );
  }
  return slice(
    x,
    x.shape.map((_, i) => (i === at ? ([start, start + length] as const) : null)),
  );
}

/** The order of an axis reversed. torch.flip. */
export function flip(x: Tensor, axis: number): Tensor {
  const at = normalizeAxis(axis, x.rank, "flip");
  const starts = x.shape.map((size, i) => (i === at ? Math.max(size - 1, 0) : 0));
  const steps = x.shape.map((_, i) => (i === at ? -1 : 1));
  return new Tensor({ op: "slice", x: x.node, starts, steps, shape: x.shape, dtype: x.dtype }, x.device);
}

/** `value` added around: [before, after] an axis. torch.nn.functional.pad with mode "constant". */
export function pad(x: Tensor, widths: readonly (readonly [before: number, after: number])[], value = 0): Tensor {
  if (widths.length !== x.rank || widths.flat().some((width) => !Number.isInteger(width) || width < 0)) {
    throw new ShapeError(
      `pad: needs one [before, after], integers of at least 0, for each of the ${x.rank} axes of ${showShape(x.shape)}.`,
      [x.shape],
    );
  }
  if (widths.every(([before, after]) => before === 0 && after === 0)) return x;
  const shape = x.shape.map((size, axis) => size + (widths[axis]?.[0] ?? 0) + (widths[axis]?.[1] ?? 0));
  return new Tensor({ op: "pad", x: x.node, before: widths.map(([before]) => before), value, shape, dtype: x.dtype }, x.device);
}

/** Size-1 axes removed: all of them, or the one named. torch.squeeze. */
export function squeeze(x: Tensor, axis?: number): Tensor {
  const at = axis === undefined ? null : normalizeAxis(axis, x.rank, "squeeze");
  return reshape(
    x,
    x.shape.filter((size, i) => size !== 1 || (at !== null && i !== at)),
  );
}

/** An axis of size 1 added at `axis`. torch.unsqueeze. */
export function unsqueeze(x: Tensor, axis: number): Tensor {
  const at = normalizeAxis(axis, x.rank + 1, "unsqueeze");
  return reshape(x, [...x.shape.slice(0, at), 1, ...x.shape.slice(at)]);
}

/** Axes `from` to the last joined into one. torch.flatten. */
export function flatten(x: Tensor, from = 0): Tensor {
  const at = x.rank === 0 ? 0 : normalizeAxis(from, x.rank, "flatten");
  return reshape(x, [...x.shape.slice(0, at), sizeOf(x.shape.slice(at))]);
}

/** Tensors one after another along an existing axis. torch.cat. */
export function concat(tensors: readonly Tensor[], axis = 0): Tensor {
  const [first] = tensors;
  if (!first) throw new ShapeError("concat: no tensors given. Pass at least one.");
  if (tensors.length === 1) return first;
  checkSameDevice("concat", ...tensors);
  const at = normalizeAxis(axis, first.rank, "concat");
  for (const t of tensors) {
    const fits = t.rank === first.rank && t.shape.every((size, i) => i === at || size === first.shape[i]);
    if (!fits || t.dtype !== first.dtype) {
      throw new ShapeError(
        `concat: ${showShape(first.shape)} ${first.dtype} and ${showShape(t.shape)} ${t.dtype} differ outside axis ${axis}. Make shapes and dtypes equal but for that axis.`,
        [first.shape, t.shape],
      );
    }
  }
  // Each part is padded to the full size and chosen by position, so that a concatenation is one fused kernel.
  const total = tensors.reduce((sum, t) => sum + (t.shape[at] ?? 0), 0);
  let offset = total;
  let result: Tensor | null = null;
  const shape = first.shape.map((size, i) => (i === at ? total : size));
  const position = new Tensor({ op: "iota", axis: at, shape, dtype: "i32" }, first.device);
  for (const t of [...tensors].reverse()) {
    const length = t.shape[at] ?? 0;
    offset -= length;
    const widths = first.shape.map((_, i) => (i === at ? ([offset, total - offset - length] as const) : ([0, 0] as const)));
    const padded = pad(t, widths);
    result = result ? position.less(offset + length).where(padded, result) : padded;
  }
  return (result as Tensor).cast(first.dtype);
}

/** Tensors of one shape side by side along a new axis. torch.stack. */
export function stack(tensors: readonly Tensor[], axis = 0): Tensor {
  return concat(
    tensors.map((t) => unsqueeze(t, axis)),
    axis,
  );
}

/** Parts of equal size along an axis. torch.chunk where it divides. Throws ShapeError otherwise. */
export function split(x: Tensor, count: number, axis = 0): Tensor[] {
  const at = normalizeAxis(axis, x.rank, "split");
  const size = x.shape[at] ?? 1;
  if (!Number.isInteger(count) || count < 1 || size % count !== 0) {
    throw new ShapeError(
      `split: axis ${axis} of ${showShape(x.shape)} does not divide into ${count} equal parts. Use narrow() for unequal parts.`,
      [x.shape],
    );
  }
  return Array.from({ length: count }, (_, i) => narrow(x, at, (i * size) / count, size / count));
}
