import type { Node } from "../graph/node.js";
import { ExprMakers, type Index, strideOf } from "../kernels/expr.js";
import type { MatrixView, Slot, StridedView } from "../kernels/kernel.js";
import { type FindSlot, linearIndex, throughView } from "./lower.js";
import { isView } from "./partition.js";

/** An operand as strides over stored memory, or the node that has to be stored to make it so. */
export type ViewResult<View> = { readonly view: View & { readonly slot: Slot } } | { readonly store: Node };

/** Follows the views below an operand down to memory. Axes of size 1 have stride 0. */
export function stridedView(operand: Node, findSlot: FindSlot): ViewResult<StridedView> {
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
  return { view: { slot: found.slot, offset: origin.index.value, strides: strides as number[] } };
}

/** An operand [...batch, rows, columns] of a matmul. */
export function matrixView(operand: Node, findSlot: FindSlot): ViewResult<MatrixView> {
  const result = stridedView(operand, findSlot);
  if ("store" in result) return result;
  const { slot, offset, strides } = result.view;
  const [rowStride = 0, columnStride = 0] = strides.slice(-2);
  return { view: { slot, offset, batchStrides: strides.slice(0, -2), rowStride, columnStride } };
}

function locate(make: ExprMakers, node: Node, at: readonly Index[], findSlot: FindSlot): { slot: Slot; index: Index } | null {
  const slot = findSlot(node);
  if (slot !== null) return { slot, index: linearIndex(make, at, node.shape) };
  return isView(node) ? locate(make, node.x, throughView(make, node, at), findSlot) : null;
}
