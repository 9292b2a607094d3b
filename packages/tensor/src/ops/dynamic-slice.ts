import { checkSameDevice, Tensor } from "../graph/tensor.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import { type Shape, sameShape } from "../tensor/shape.js";

/** Sizes of a part of x, the batch axis included, once starts and sizes are known to fit. */
function checkedPart(what: string, x: Tensor, starts: Tensor, sizes: Shape): Shape {
  checkSameDevice(what, x, starts);
  const isBatched = starts.rank === 2;
  const [batch = 0] = x.shape;
  const axes = isBatched ? x.shape.slice(1) : x.shape;
  const startsFit = isBatched ? sameShape(starts.shape, [batch, axes.length]) : sameShape(starts.shape, [axes.length]);
  if (starts.dtype !== "i32" || !startsFit) {
    throw new ShapeError(
      `${what}: starts are ${starts.dtype} ${showShape(starts.shape)} for a tensor of shape ${showShape(x.shape)}. Use i32 [${x.rank}], or [${batch}, ${Math.max(x.rank - 1, 0)}] for a start for each row of the batch.`,
      [starts.shape, x.shape],
    );
  }
  const fits =
    sizes.length === axes.length && sizes.every((size, axis) => Number.isInteger(size) && size >= 0 && size <= (axes[axis] ?? 0));
  if (!fits) {
    throw new ShapeError(
      `${what}: a part of sizes ${showShape(sizes)} does not lie inside ${showShape(axes)}${isBatched ? ", the axes after the batch" : ""}. Give one size an axis, none larger than the axis.`,
      [sizes, x.shape],
    );
  }
  return isBatched ? [batch, ...sizes] : [...sizes];
}

/**
 * The part of x of the given sizes that begins at `starts`, which the device reads when it runs. starts i32 [rank]; or i32
 * [batch, rank − 1] where each row of x's first axis has a start of its own, and `sizes` are those of the other axes. A start that would
 * let the part leave x is clamped. Throws ShapeError where they do not fit. jax.lax.dynamic_slice.
 */
export function dynamicSlice(x: Tensor, starts: Tensor, sizes: Shape): Tensor {
  const shape = checkedPart("dynamicSlice", x, starts, sizes);
  if (sameShape(shape, x.shape)) return x;
  return new Tensor({ op: "dynamicSlice", x: x.node, starts: starts.node, shape, dtype: x.dtype }, x.device);
}

/**
 * x with `update`, cast to x's dtype, in place of the part that begins at `starts`: i32 [rank], or i32 [batch, rank − 1] for a start for
 * each row of the first axis, which both have. Starts are clamped as in `dynamicSlice`. Assigned to x it writes only the update; what
 * still needs the old x reads it before, or reads a copy. Throws ShapeError where they do not fit. jax.lax.dynamic_update_slice.
 */
export function dynamicUpdateSlice(x: Tensor, update: Tensor, starts: Tensor): Tensor {
  const isBatched = starts.rank === 2;
  if (update.rank !== x.rank || (isBatched && update.shape[0] !== x.shape[0])) {
    throw new ShapeError(
      `dynamicUpdateSlice: an update of shape ${showShape(update.shape)} does not fit a tensor of shape ${showShape(x.shape)}. Use as many axes${isBatched ? ", and the same batch" : ""}.`,
      [update.shape, x.shape],
    );
  }
  checkedPart("dynamicUpdateSlice", x, starts, isBatched ? update.shape.slice(1) : update.shape);
  const part = update.cast(x.dtype);
  if (sameShape(part.shape, x.shape)) return part;
  if (part.size === 0) return x;
  return new Tensor(
    { op: "dynamicUpdateSlice", x: x.node, update: part.node, starts: starts.node, shape: x.shape, dtype: x.dtype },
    x.device,
  );
}
