import { inputsOf, type Node } from "../graph/node.js";
import type { AddedProduct, MatrixOperand, Slot } from "../kernels/kernel.js";
import { isComputed } from "../kernels/products.js";
import { type FindSlot, type Lowered, lowerKernel, lowerUpdate } from "./lower.js";
import { isRepeating, loadOperand } from "./operands.js";
import { behindReshapes, behindViews, isFree, isUpdate, isView } from "./partition.js";
import { matrixView } from "./views.js";

/** What has to be stored so that a node lies whole in memory. */
export function whole(node: Node): Node {
  return isView(node) ? node : behindReshapes(node);
}

/** The kernel of a node other than a composite, or what has to be stored first. */
export function lowerNode(node: Node, slot: Slot, findSlot: FindSlot): Lowered {
  if (node.op === "matmul") return lowerProduct(node, slot, findSlot);
  if (node.op === "scatterAdd") {
    const [rows = 0, width = 0] = node.shape;
    const [indices, updates] = [findSlot(node.indices), findSlot(node.updates)];
    if (indices === null) return { store: [whole(node.indices)] };
    if (updates === null) return { store: [whole(node.updates)] };
    return { kernel: { kind: "scatterAdd", rows, width, count: node.indices.shape[0] ?? 0, indices, updates, out: slot } };
  }
  if (isUpdate(node)) {
    const held = findSlot(node.x);
    return held === null ? { store: [whole(node.x)] } : lowerUpdate(node, slot, held, findSlot, inputsOf);
  }
  return lowerKernel(node, slot, (other) => (other === node ? null : findSlot(other)), inputsOf);
}

function lowerProduct(node: Node & { op: "matmul" }, slot: Slot, findSlot: FindSlot): Lowered {
  const [m = 1] = node.a.shape.slice(-2);
  const n = node.shape[node.shape.length - 1] ?? 1;
  const products: AddedProduct[] = [];
  for (const product of [{ a: node.a, b: node.b, factor: 1 }, ...(node.plus ?? [])]) {
    const [a, b] = [lowerFactor(product.a, findSlot), lowerFactor(product.b, findSlot)];
    if ("store" in a) return a;
    if ("store" in b) return b;
    products.push({ k: product.a.shape.at(-1) ?? 1, a: a.operand, b: b.operand, factor: product.factor });
  }
  const [first, ...plus] = products;
  if (!first) throw new Error("lower: a product without operands.");
  const { k, a, b } = first;
  const isRounded = node.isRounded === true && isComputed(b);
  const batch = node.shape.slice(0, -2);
  return {
    kernel: { kind: "matmul", batch, m, n, k, a, b, out: slot, ...(plus.length > 0 && { plus }), ...(isRounded && { isRounded }) },
  };
}

/** An operand as strides over memory, else as an expression where what is behind its views is not stored, or repeated by them. */
function lowerFactor(operand: Node, findSlot: FindSlot): { readonly operand: MatrixOperand } | { readonly store: readonly Node[] } {
  const result = matrixView(operand, findSlot);
  if ("view" in result) return { operand: result.view };
  const root = behindViews(operand);
  const isComputed = findSlot(root) === null ? !isFree(root) : isRepeating(operand);
  return isComputed ? loadOperand(operand, findSlot) : { store: [result.store] };
}
