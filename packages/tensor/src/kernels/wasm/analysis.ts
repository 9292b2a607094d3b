import { binaryKinds } from "../../elementwise/binary.js";
import { unaryKinds } from "../../elementwise/unary.js";
import { type Expr, expressionsBelow, strideOf } from "../expr.js";
import type { LoopKernel } from "../kernel.js";

/** Memoised questions about the expressions of one kernel. */
export class Analysis {
  readonly #strides = new Map<Expr, (number | null)[]>();

  dependsOn(expr: Expr, axis: number): boolean {
    return (expr.axes & (1 << axis)) !== 0;
  }

  usesAccumulator(expr: Expr): boolean {
    return expr.axes < 0;
  }

  /** Elements that an index moves per step of an axis; null where that is not constant. */
  stride(index: Expr, axis: number): number | null {
    if (!this.dependsOn(index, axis)) return 0;
    let strides = this.#strides.get(index);
    if (!strides) this.#strides.set(index, (strides = []));
    let stride = strides[axis];
    if (stride === undefined) strides[axis] = stride = strideOf(index, axis);
    return stride;
  }

  /** Cost of a kernel's inner step on four lanes when vectors run along `vectorAxis`. */
  cost(kernel: LoopKernel, vectorAxis: number): number {
    const inner = kernel.outer.length;
    let cost = 0;
    for (const store of kernel.stores) if (store.scope === "element") cost += this.#accessCost(store.index, vectorAxis);
    for (const node of expressionsBelow(elementRoots(kernel))) if (this.dependsOn(node, inner)) cost += this.#nodeCost(node, vectorAxis);
    return cost + 2;
  }

  #accessCost(index: Expr, axis: number): number {
    const stride = this.stride(index, axis);
    return stride === 1 || stride === 0 ? 1 : stride === null ? 10 : 6;
  }

  #nodeCost(node: Expr, vectorAxis: number): number {
    switch (node.op) {
      case "const":
      case "variable":
      case "accumulator":
      case "given":
        return 0;
      case "load":
        return this.#accessCost(node.index, vectorAxis);
      case "unary":
        return unaryKinds[node.kind].cost;
      case "index":
      case "binary": {
        if (node.dtype === "i32" && !this.dependsOn(node, vectorAxis)) return 0.5;
        const { cost, integerCost = cost } = binaryKinds[node.kind];
        return node.a.dtype === "f32" ? cost : integerCost;
      }
      case "select":
      case "cast":
        return 1;
      case "random":
        return 130;
    }
  }
}

/** The expressions that a kernel evaluates for every inner step. */
export function elementRoots(kernel: LoopKernel): Expr[] {
  const stores = kernel.stores.filter((store) => store.scope === "element");
  return [...kernel.reductions.map((reduction) => reduction.value), ...stores.map((store) => store.value)];
}
