import { checkSameDevice, Tensor } from "../graph/tensor.js";
import { isFloat } from "../tensor/dtype.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import { broadcastShapes } from "../tensor/shape.js";
import { expand, reshape } from "./movement.js";
import { rounding } from "./rounded.js";

/**
 * Matrix product of the last two axes, f32; leading axes broadcast. A rank-1 operand is a row (left) or column (right) whose axis
 * is dropped from the result. f16 and bf16 operands are widened while they are read. torch.matmul.
 */
export function matmul(left: Tensor, right: Tensor): Tensor {
  checkSameDevice("matmul", left, right);
  if (left.rank === 0 || right.rank === 0) {
    throw new ShapeError(
      `matmul: needs tensors of rank 1 or more: ${showShape(left.shape)} x ${showShape(right.shape)}. Use mul() for scalars.`,
      [left.shape, right.shape],
    );
  }
  const a = left.rank === 1 ? reshape(left, [1, left.size]) : left;
  const b = right.rank === 1 ? reshape(right, [right.size, 1]) : right;
  const [m = 1, k = 1] = a.shape.slice(-2);
  const [inner = 1, n = 1] = b.shape.slice(-2);
  if (k !== inner) {
    throw new ShapeError(
      `matmul: inner sizes differ: ${showShape(left.shape)} x ${showShape(right.shape)} (${k} vs ${inner}). Transpose the right operand or check the layer's input size.`,
      [left.shape, right.shape],
    );
  }
  const batch = broadcastShapes(a.shape.slice(0, -2), b.shape.slice(0, -2), "matmul");
  const x = isFloat(a.dtype) ? a : a.cast("f32");
  const y = isFloat(b.dtype) ? b : b.cast("f32");
  const product = product2(x, y, batch, m, k, n);
  if (left.rank > 1 && right.rank > 1) return product;
  return reshape(product, [...batch, ...(left.rank > 1 ? [m] : []), ...(right.rank > 1 ? [n] : [])]);
}

function product2(x: Tensor, y: Tensor, batch: readonly number[], m: number, k: number, n: number): Tensor {
  // A shared right operand makes one tall matrix of the batch: one product instead of many small ones.
  if (batch.length > 0 && y.rank === 2) {
    const rows = x.size / k;
    const flat = new Tensor(
      { op: "matmul", a: reshape(x, [rows, k]).node, b: y.node, shape: [rows, n], dtype: "f32", ...rounding() },
      x.device,
    );
    return reshape(flat, [...batch, m, n]);
  }
  const a = expand(x, [...batch, m, k]).node;
  const b = expand(y, [...batch, k, n]).node;
  return new Tensor({ op: "matmul", a, b, shape: [...batch, m, n], dtype: "f32", ...rounding() }, x.device);
}
