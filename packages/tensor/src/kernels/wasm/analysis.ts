import { type Expr, operandsOf, strideOf } from "../expr.js";
import type { LoopKernel } from "../kernel.js";

/** Cost of one evaluation of a node on four lanes, in cheap vector instructions. */
const unaryCost = { neg: 1, abs: 1, exp: 24, log: 28, sqrt: 4, sin: 120, cos: 120, tanh: 36, erf: 44, floor: 1, not: 1 } as const;

/** Memoised questions about the expressions of one kernel. */
export class Analysis {
  readonly #axes = new Map<Expr, number>();
  readonly #strides = new Map<Expr, (number | null)[]>();

  /** Bit a is set when the value depends on axis a; bit 31 when it depends on an accumulator. */
  axesOf(expr: Expr): number {
    let axes = this.#axes.get(expr);
    if (axes === undefined) {
      if (expr.op === "variable") axes = 1 << expr.axis;
      else if (expr.op === "accumulator") axes = 1 << 31;
      else axes = operandsOf(expr).reduce((all, operand) => all | this.axesOf(operand), 0);
      this.#axes.set(expr, axes);
    }
    return axes;
  }

  dependsOn(expr: Expr, axis: number): boolean {
    return (this.axesOf(expr) & (1 << axis)) !== 0;
  }

  usesAccumulator(expr: Expr): boolean {
    return this.axesOf(expr) < 0;
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

  /** Every node below the roots, each once. */
  nodes(roots: readonly Expr[]): Set<Expr> {
    const seen = new Set<Expr>();
    const walk = (expr: Expr): void => {
      if (seen.has(expr)) return;
      seen.add(expr);
      for (const operand of operandsOf(expr)) walk(operand);
    };
    for (const root of roots) walk(root);
    return seen;
  }

  /** Cost of a kernel's inner step on four lanes when vectors run along `vectorAxis`. */
  cost(kernel: LoopKernel, vectorAxis: number): number {
    const inner = kernel.outer.length;
    let cost = 0;
    for (const store of kernel.stores) if (store.scope === "element") cost += this.#accessCost(store.index, vectorAxis);
    for (const node of this.nodes(elementRoots(kernel))) if (this.dependsOn(node, inner)) cost += this.#nodeCost(node, vectorAxis);
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
        return 0;
      case "load":
        return this.#accessCost(node.index, vectorAxis);
      case "unary":
        return unaryCost[node.kind];
      case "binary":
        if (node.dtype === "i32" && !this.dependsOn(node, vectorAxis)) return 0.5;
        if (node.kind === "pow") return 200;
        if (node.kind === "div" || node.kind === "mod") return node.dtype === "f32" && node.kind === "div" ? 4 : 24;
        return 1;
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
