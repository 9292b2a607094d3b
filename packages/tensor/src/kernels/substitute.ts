import { type Expr, type ExprMakers, expressionsBelow, type Index } from "./expr.js";

/** Copies an expression into other makers, with every variable replaced, and with `accumulated` every accumulator. */
export function substitute<T extends Expr>(
  expr: T,
  makers: ExprMakers,
  variable: (axis: number, size: number) => Index,
  seen?: Map<Expr, Expr>,
  accumulated?: Expr | null,
): T extends Index ? Index : Expr;
export function substitute(
  root: Expr,
  makers: ExprMakers,
  variable: (axis: number, size: number) => Index,
  seen: Map<Expr, Expr> = new Map(),
  accumulated: Expr | null = null,
): Expr {
  const made = (x: Expr): Expr => seen.get(x) as Expr;
  // Only loads and accumulators become other operations, so that an index becomes an index.
  const madeIndex = (x: Index): Index => seen.get(x) as Index;
  const remake = (x: Expr): Expr => {
    switch (x.op) {
      case "const":
        return makers.constant(x.dtype, x.value);
      case "variable":
        return variable(x.axis, x.size);
      case "index":
        return makers.index(x.kind, madeIndex(x.a), madeIndex(x.b));
      case "given":
        return makers.given(made(x.x));
      case "load":
        return makers.load(x.dtype, x.slot, madeIndex(x.index));
      case "unary":
        return makers.unary(x.kind, made(x.x));
      case "binary":
        return makers.binary(x.kind, made(x.a), made(x.b));
      case "select":
        return makers.select(made(x.condition), made(x.a), made(x.b));
      case "cast":
        return makers.cast(x.dtype, made(x.x));
      case "accumulator":
        return accumulated ?? makers.accumulator(x.dtype, x.index);
      case "random":
        return makers.random(made(x.key0), made(x.key1), made(x.stream), madeIndex(x.index));
    }
  };
  // Operands come before what reads them.
  for (const x of expressionsBelow([root], seen)) seen.set(x, remake(x));
  return made(root);
}
