import type { Node } from "../graph/node.js";
import { type Expr, ExprMakers, strideOf } from "../kernels/expr.js";
import type { MatrixView, Slot } from "../kernels/kernel.js";
import { type FindSlot, linearIndex, throughView } from "./lower.js";
import { isView } from "./partition.js";

/** A matmul operand as strides over stored memory, or the node that has to be stored to make it so. */
export type ViewResult = { readonly view: MatrixView } | { readonly store: Node };

/** Follows the views below an operand [...batch, rows, columns] down to memory. */
export function matrixView(operand: Node, findSlot: FindSlot): ViewResult {
  const make = new ExprMakers();
  const variables = operand.shape.map((size, axis) => make.variable(axis, size));
  const found = locate(make, operand, variables, findSlot);
  if (!found) return { store: operand };
  // Axes of size 1 have no variable and so no stride; it is never used.
  const strides = operand.shape.map((_, axis) => strideOf(found.index, axis));
  if (strides.some((stride) => stride === null)) return { store: operand };
  const origin = locate(
    make,
    operand,
    operand.shape.map(() => make.int(0)),
    findSlot,
  );
  if (origin?.index.op !== "const") return { store: operand };
  const [rowStride = 0, columnStride = 0] = strides.slice(-2) as number[];
  return {
    view: { slot: found.slot, offset: origin.index.value, batchStrides: strides.slice(0, -2) as number[], rowStride, columnStride },
  };
}

function locate(make: ExprMakers, node: Node, at: readonly Expr[], findSlot: FindSlot): { slot: Slot; index: Expr } | null {
  const slot = findSlot(node);
  if (slot !== null) return { slot, index: linearIndex(make, at, node.shape) };
  return isView(node) ? locate(make, node.x, throughView(make, node, at), findSlot) : null;
}
