import { type Expr, ExprMakers, expressionsBelow, type Index, isIndex } from "../expr.js";
import { type LoopKernel, type Reduction, rootsOf, type Store } from "../kernel.js";
import { substitute } from "../substitute.js";

/** Steps start … end - 1 of an inner loop, with the kernel's expressions as they are there. */
export interface Segment {
  readonly start: number;
  readonly end: number;
  readonly reductions: readonly Reduction[];
  readonly stores: readonly Store[];
}

/** More parts than this (a condition for each of many pieces) would be more code than they save. */
const maxSegments = 8;

/** The inner loop as one part. */
export function wholeLoop(kernel: LoopKernel): readonly Segment[] {
  return [{ start: 0, end: kernel.inner, reductions: kernel.reductions, stores: kernel.stores }];
}

/**
 * Cuts the inner loop where a comparison of its variable with a constant changes, and folds what is constant in each part: a sum of padded
 * tensors (tensors side by side) becomes loops that each read one of them, without clamped indices.
 */
export function segmentsOf(kernel: LoopKernel): readonly Segment[] {
  const axis = kernel.outer.length;
  const cuts = new Set<number>();
  for (const expr of expressionsBelow(rootsOf(kernel)))
    for (const cut of cutsOf(expr, axis)) if (cut > 0 && cut < kernel.inner) cuts.add(cut);
  if (cuts.size === 0 || cuts.size >= maxSegments) return wholeLoop(kernel);
  const edges = [0, ...[...cuts].sort((a, b) => a - b), kernel.inner];
  return edges.slice(1).map((end, i) => {
    const start = edges[i] ?? 0;
    const makers = new ExprMakers(new Map([[axis, { low: start, high: end - 1 }]]));
    const known = new Map<Expr, Expr>();
    const fold = <T extends Expr>(expr: T) => substitute(expr, makers, (variable, size) => makers.variable(variable, size), known);
    return {
      start,
      end,
      reductions: kernel.reductions.map((reduction) => ({ ...reduction, value: fold(reduction.value) })),
      stores: kernel.stores.map((store) => ({ ...store, index: fold(store.index), value: fold(store.value) })),
    };
  });
}

/** The values of the variable at which a comparison or clamp of an index first has another outcome. */
function cutsOf(expr: Expr, axis: number): number[] {
  if (expr.op !== "binary" && expr.op !== "index") return [];
  const { kind } = expr;
  if (kind !== "lt" && kind !== "le" && kind !== "eq" && kind !== "max" && kind !== "min") return [];
  if (!isIndex(expr.a) || !isIndex(expr.b)) return [];
  const [a, b] = [linear(expr.a, axis), linear(expr.b, axis)];
  if (!a || !b) return [];
  // a - b = scale · variable + offset changes its sign where the variable passes `zero`.
  const scale = a.scale - b.scale;
  const offset = a.offset - b.offset;
  if (scale === 0) return [];
  const zero = -offset / scale;
  const [at, after] = [Math.ceil(zero), Math.floor(zero) + 1];
  if (kind === "eq") return Number.isInteger(zero) ? [at, after] : [];
  // Of a growing difference, a < b ends at zero and a ≤ b after it; of a falling one, they begin there the other way round.
  return [(kind === "le") === scale > 0 ? after : at];
}

/** scale · variable + offset, where the expression is that and nothing else. */
function linear(expr: Index, axis: number): { scale: number; offset: number } | null {
  if (expr.op === "const") return { scale: 0, offset: expr.value };
  if (expr.op === "variable") return expr.axis === axis ? { scale: 1, offset: 0 } : null;
  if (expr.op !== "index" || (expr.kind !== "add" && expr.kind !== "sub" && expr.kind !== "mul")) return null;
  const [a, b] = [linear(expr.a, axis), linear(expr.b, axis)];
  if (!a || !b) return null;
  if (expr.kind === "mul") return b.scale === 0 ? { scale: a.scale * b.offset, offset: a.offset * b.offset } : null;
  const sign = expr.kind === "add" ? 1 : -1;
  return { scale: a.scale + sign * b.scale, offset: a.offset + sign * b.offset };
}
