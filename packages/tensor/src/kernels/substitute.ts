import type { Expr, ExprMakers } from "./expr.js";

/** Copies an expression into other makers, with every variable replaced, and with `accumulated` every accumulator. */
export function substitute(
  expr: Expr,
  makers: ExprMakers,
  variable: (axis: number, size: number) => Expr,
  seen: Map<Expr, Expr> = new Map(),
  accumulated: Expr | null = null,
): Expr {
  const walk = (x: Expr): Expr => {
    const known = seen.get(x);
    if (known) return known;
    const made = remake(x);
    seen.set(x, made);
    return made;
  };
  const remake = (x: Expr): Expr => {
    switch (x.op) {
      case "const":
        return makers.constant(x.dtype, x.value);
      case "variable":
        return variable(x.axis, x.size);
      case "load":
        return makers.load(x.dtype, x.slot, walk(x.index));
      case "unary":
        return makers.unary(x.kind, walk(x.x));
      case "binary":
        return makers.binary(x.kind, walk(x.a), walk(x.b));
      case "select":
        return makers.select(walk(x.condition), walk(x.a), walk(x.b));
      case "cast":
        return makers.cast(x.dtype, walk(x.x));
      case "accumulator":
        return accumulated ?? makers.accumulator(x.dtype, x.index);
      case "random":
        return makers.random(walk(x.key0), walk(x.key1), x.stream, walk(x.index));
    }
  };
  return walk(expr);
}
