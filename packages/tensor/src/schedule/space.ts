import { type Expr, ExprMakers, type Index } from "../kernels/expr.js";
import type { LoopKernel, Reduction, Store } from "../kernels/kernel.js";
import { substitute } from "../kernels/substitute.js";
import { sizeOf } from "../tensor/shape.js";

/** A loop kernel's body over axes that another kernel shares, made by the same makers. */
export interface Body {
  readonly reductions: readonly Reduction[];
  readonly stores: readonly Store[];
}

/** Two kernels over the same loops. */
export interface Aligned {
  readonly outer: readonly number[];
  readonly inner: number;
  readonly make: ExprMakers;
  readonly first: Body;
  readonly second: Body;
}

/** What a kernel does once a row and nothing more; its inner loop may be any. */
function isRowOnly({ reductions, stores }: LoopKernel): boolean {
  return reductions.length === 0 && stores.every((store) => store.scope === "row");
}

function isElementwise({ reductions, stores }: LoopKernel): boolean {
  return reductions.length === 0 && stores.every((store) => store.scope === "element");
}

/** An elementwise kernel with each element as a row. */
function asRows(kernel: LoopKernel): LoopKernel {
  const stores = kernel.stores.map((store): Store => ({ ...store, scope: "row" }));
  return { ...kernel, outer: [...kernel.outer, kernel.inner], inner: 1, stores };
}

/** A way to lay two kernels over the same loops. */
export interface Alignment {
  readonly first: LoopKernel;
  readonly second: LoopKernel;
  readonly outer: readonly number[];
  readonly inner: number;
  /** Whether the rows of both cover the inner axis too. */
  readonly isFlat: boolean;
}

/** The ways to lay two kernels over the same loops, best first. */
export function alignments(first: LoopKernel, second: LoopKernel): Alignment[] {
  if (isElementwise(first) && isElementwise(second)) {
    const axes = commonAxes([...first.outer, first.inner], [...second.outer, second.inner]);
    if (!axes) return [];
    return [{ first: asRows(first), second: asRows(second), outer: axes.slice(0, -1), inner: axes.at(-1) ?? 1, isFlat: true }];
  }
  const found: Alignment[] = [];
  for (const a of isElementwise(first) ? [first, asRows(first)] : [first]) {
    for (const b of isElementwise(second) ? [second, asRows(second)] : [second]) {
      if (a.inner !== b.inner && !isRowOnly(a) && !isRowOnly(b)) continue;
      const outer = commonAxes(a.outer, b.outer);
      if (outer) found.push({ first: a, second: b, outer, inner: isRowOnly(a) ? b.inner : a.inner, isFlat: false });
    }
  }
  return found;
}

/** The coarsest axes of which the axes of both lists are whole runs; null where there are none. */
function commonAxes(a: readonly number[], b: readonly number[]): number[] | null {
  if (sizeOf(a) !== sizeOf(b) || sizeOf(a) === 0) return null;
  const edges = new Set([...edgesOf(a), ...edgesOf(b)]);
  const sorted = [...edges].sort((x, y) => x - y);
  const sizes: number[] = [];
  for (const [i, edge] of sorted.entries()) {
    const below = sorted[i - 1] ?? 1;
    if (edge % below !== 0) return null;
    sizes.unshift(edge / below);
  }
  return sizes.length === 0 ? [1] : sizes;
}

/** Sizes of the trailing runs of axes, without those of size 1. */
function edgesOf(sizes: readonly number[]): number[] {
  let below = 1;
  return [...sizes].reverse().flatMap((size) => (size === 1 ? [] : [(below *= size)]));
}

/** Rewrites both kernels over the loops that they share, in makers of their own. */
export function align({ first, second, outer, inner, isFlat }: Alignment): Aligned {
  const make = new ExprMakers();
  const axes = isFlat ? [...outer, inner] : outer;
  const move = (kernel: LoopKernel): Body => {
    const variables = positions(make, kernel.outer, axes);
    const innerVariable = make.variable(outer.length, inner);
    const known = new Map<Expr, Expr>();
    const to = <T extends Expr>(expr: T) =>
      substitute(expr, make, (axis) => (axis < kernel.outer.length ? (variables[axis] ?? make.int(0)) : innerVariable), known);
    return {
      reductions: kernel.reductions.map((reduction) => ({ ...reduction, value: to(reduction.value) })),
      stores: kernel.stores.map((store) => ({
        scope: isFlat ? "element" : store.scope,
        slot: store.slot,
        index: to(store.index),
        value: to(store.value),
      })),
    };
  };
  return { outer, inner, make, first: move(first), second: move(second) };
}

/** Each of `sizes`' positions in terms of finer axes. */
function positions(make: ExprMakers, sizes: readonly number[], axes: readonly number[]): Index[] {
  let axis = axes.length - 1;
  const result: Index[] = [];
  for (const size of [...sizes].reverse()) {
    let position: Index = make.int(0);
    let below = 1;
    while (below < size && axis >= 0) {
      const step = axes[axis] ?? 1;
      position = make.add(make.mul(make.variable(axis, step), make.int(below)), position);
      below *= step;
      axis--;
    }
    result.unshift(position);
  }
  return result;
}

/** An index as a sum of variables times numbers and a number; null where it is anything else. */
function linearForm(expr: Index): Map<number, number> | null {
  switch (expr.op) {
    case "const":
      return new Map([[-1, expr.value]]);
    case "variable":
      return new Map([[expr.axis, 1]]);
    case "index": {
      const a = linearForm(expr.a);
      const b = linearForm(expr.b);
      if (!a || !b) return null;
      if (expr.kind === "mul" && expr.b.op === "const")
        return new Map([...a].map(([axis, factor]) => [axis, factor * (expr.b as { value: number }).value]));
      if (expr.kind !== "add" && expr.kind !== "sub") return null;
      const sign = expr.kind === "add" ? 1 : -1;
      const sum = new Map(a);
      for (const [axis, factor] of b) sum.set(axis, (sum.get(axis) ?? 0) + sign * factor);
      return sum;
    }
    default:
      return null;
  }
}

/** True when two indices of the same makers are the same element everywhere. */
export function sameIndex(a: Index, b: Index): boolean {
  if (a === b) return true;
  const [x, y] = [linearForm(a), linearForm(b)];
  if (!x || !y) return false;
  return [...new Set([...x.keys(), ...y.keys()])].every((axis) => (x.get(axis) ?? 0) === (y.get(axis) ?? 0));
}
