import { checkSameDevice, Tensor } from "../graph/tensor.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import { checkShape, normalizeAxis, sizeOf } from "../tensor/shape.js";
import { add, minimum, mul } from "./elementwise.js";
import { reshape } from "./movement.js";

function checkIndices(indices: Tensor, what: string): void {
  if (indices.dtype !== "i32" && indices.dtype !== "u32") {
    throw new ShapeError(`${what}: indices are ${indices.dtype}. Cast them to i32.`, [indices.shape]);
  }
}

/** x at `indices` along an axis; the indices' shape takes the axis' place. Indices beyond the axis are clamped. numpy.take. */
export function gather(x: Tensor, indices: Tensor, axis = 0): Tensor {
  checkIndices(indices, "gather");
  checkSameDevice("gather", x, indices);
  const at = normalizeAxis(axis, x.rank, "gather");
  if (x.shape[at] === 0) throw new ShapeError(`gather: axis ${axis} of ${showShape(x.shape)} is empty.`, [x.shape]);
  const shape = [...x.shape.slice(0, at), ...indices.shape, ...x.shape.slice(at + 1)];
  // What a u32 has beyond i32 is past every axis.
  const positions = (indices.dtype === "u32" ? minimum(indices, 2 ** 31 - 1) : indices).cast("i32");
  return new Tensor({ op: "gather", x: x.node, indices: positions.node, axis: at, shape, dtype: x.dtype }, x.device);
}

/** One element a row of the last axis: out[…] = x[…, indices[…]]. torch.gather(x, -1, indices[..., None])[..., 0]. */
export function pick(x: Tensor, indices: Tensor): Tensor {
  checkIndices(indices, "pick");
  const width = x.shape[x.rank - 1] ?? 0;
  const rows = sizeOf(x.shape.slice(0, -1));
  if (indices.size !== rows) {
    throw new ShapeError(
      `pick: ${showShape(indices.shape)} indices do not fit rows of ${showShape(x.shape)}. One index a row of the last axis is needed.`,
      [x.shape, indices.shape],
    );
  }
  const row = new Tensor({ op: "iota", axis: 0, shape: [rows], dtype: "i32" }, x.device);
  const flat = add(mul(row, width), reshape(indices.cast("i32"), [rows]));
  return reshape(gather(reshape(x, [rows * width]), flat, 0), x.shape.slice(0, -1));
}

/** Zeros [rows, width] with updates[n, :] added at row indices[n]; indices outside 0 … rows-1 are skipped. torch.index_add. */
export function scatterAdd(indices: Tensor, updates: Tensor, rows: number): Tensor {
  checkIndices(indices, "scatterAdd");
  checkSameDevice("scatterAdd", indices, updates);
  if (indices.rank !== 1 || updates.rank !== 2 || indices.shape[0] !== updates.shape[0]) {
    throw new ShapeError(
      `scatterAdd: needs indices [n] and updates [n, width], got ${showShape(indices.shape)} and ${showShape(updates.shape)}.`,
      [indices.shape, updates.shape],
    );
  }
  const shape = [rows, updates.shape[1] ?? 1];
  checkShape(shape, "scatterAdd");
  return new Tensor(
    { op: "scatterAdd", indices: indices.cast("i32").node, updates: updates.cast("f32").node, shape, dtype: "f32" },
    updates.device,
  );
}

/** 1 where the last axis equals the index, else 0: [...shape, depth], f32. torch.nn.functional.one_hot. */
export function oneHot(indices: Tensor, depth: number): Tensor {
  checkIndices(indices, "oneHot");
  const shape = [...indices.shape, depth];
  checkShape(shape, "oneHot");
  const position = new Tensor({ op: "iota", axis: indices.rank, shape, dtype: "i32" }, indices.device);
  return position.equal(reshape(indices.cast("i32"), [...indices.shape, 1])).cast("f32");
}
