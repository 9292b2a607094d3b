import type { DType } from "../../tensor/dtype.js";
import type { Expr } from "../expr.js";
import type { Slot } from "../kernel.js";
import { slotsOf } from "./loop.js";
import type { LoopProgram } from "./lower.js";

/** A text that two programs share exactly when the same function serves both (with its slots in the same order). */
export function describeLoop(program: LoopProgram, dtypes: (slot: Slot) => DType): string {
  const { kernel } = program;
  const slots = slotsOf(program);
  const { lines, walk } = describer(slots);
  const reductions = kernel.reductions.map((reduction) => `${reduction.combine}${walk(reduction.value)}`);
  const stores = kernel.stores.map((store) => `${store.scope}${slots.indexOf(store.slot)}[${walk(store.index)}]=${walk(store.value)}`);
  const shape = [
    kernel.outer.join(),
    kernel.inner,
    program.chunk,
    program.isTile,
    program.isRanged,
    program.addsLanes,
    program.vectorAxis,
    program.units,
    program.rowsPerTile,
  ].join("/");
  return ["loop", shape, slots.map(dtypes).join(), ...lines, ...reductions, ...stores].join(";");
}

/** Equal for expressions that differ in slots and sizes of variables only; `slots` numbers the slots. */
export function describeExprs(roots: readonly Expr[], slots: readonly Slot[]): string {
  const { lines, walk } = describer(slots);
  const results = roots.map(walk);
  return [...lines, ...results].join(";");
}

function describer(slots: readonly Slot[]): { readonly lines: string[]; readonly walk: (expr: Expr) => number } {
  const numbers = new Map<Expr, number>();
  const lines: string[] = [];
  const walk = (expr: Expr): number => {
    const known = numbers.get(expr);
    if (known !== undefined) return known;
    const line = describeNode(expr, walk, slots);
    lines.push(line);
    numbers.set(expr, numbers.size);
    return numbers.size - 1;
  };
  return { lines, walk };
}

function describeNode(expr: Expr, walk: (x: Expr) => number, slots: readonly Slot[]): string {
  switch (expr.op) {
    case "const":
      return `${expr.dtype}${Object.is(expr.value, -0) ? "-0" : expr.value}`;
    case "variable":
      return `v${expr.axis}`;
    case "load":
      return `${expr.dtype}l${slots.indexOf(expr.slot)}[${walk(expr.index)}]`;
    case "unary":
      return `${expr.kind} ${walk(expr.x)}`;
    case "binary":
    case "index":
      return `${expr.kind} ${walk(expr.a)} ${walk(expr.b)}`;
    case "given":
      return `index ${walk(expr.x)}`;
    case "select":
      return `select ${walk(expr.condition)} ${walk(expr.a)} ${walk(expr.b)}`;
    case "cast":
      return `${expr.dtype}(${walk(expr.x)})`;
    case "accumulator":
      return `a${expr.index}`;
    case "random":
      return `random ${walk(expr.key0)} ${walk(expr.key1)} ${walk(expr.stream)} ${walk(expr.index)}`;
  }
}
