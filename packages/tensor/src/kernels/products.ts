import type { AddedProduct, LoadOperand, MatmulKernel, MatrixOperand, MatrixView, Slot } from "./kernel.js";

/** All products that a kernel adds up, its own first. */
export function productsOf({ k, a, b, plus = [] }: MatmulKernel): AddedProduct[] {
  return [{ k, a, b, factor: 1 }, ...plus];
}

/** True for an operand that is computed as it is read. */
export function isComputed(operand: MatrixOperand): operand is LoadOperand {
  return "value" in operand;
}

/** The slots that an operand reads. */
export function slotsOfOperand(operand: MatrixOperand): readonly Slot[] {
  return isComputed(operand) ? operand.slots : [operand.slot];
}

/** The operand as strides over a slot. Throws where it is computed: the caller has ruled that out. */
export function asView(operand: MatrixOperand): MatrixView {
  if (isComputed(operand)) throw new Error("A computed operand has no strides.");
  return operand;
}
