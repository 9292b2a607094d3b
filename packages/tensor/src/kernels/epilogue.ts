import { type Expr, ExprMakers, type Index } from "./expr.js";
import type { Epilogue, LoopKernel, MatmulKernel } from "./kernel.js";
import { substitute } from "./substitute.js";

/** An epilogue as a loop that reads the product from `out`, where the matmul has put it. */
export function epilogueLoop({ out }: MatmulKernel, { outer, inner, stores }: Epilogue): LoopKernel {
  const make = new ExprMakers();
  const place = [...outer, inner].reduce<Index>(
    (index, size, axis) => make.add(make.mul(index, make.int(size)), make.variable(axis, size)),
    make.int(0),
  );
  const product = make.load("f32", out, place);
  const known = new Map<Expr, Expr>();
  const read = <T extends Expr>(expr: T) => substitute(expr, make, (axis, size) => make.variable(axis, size), known, product);
  return {
    kind: "loop",
    outer,
    inner,
    reductions: [],
    stores: stores.map((store) => ({ ...store, index: read(store.index), value: read(store.value) })),
  };
}
