import { type Expr, expressionsBelow, type Index } from "../kernels/expr.js";
import type { Kernel, MatmulKernel, MatrixOperand, Slot, Store } from "../kernels/kernel.js";
import { isComputed } from "../kernels/products.js";

type Rename = (slot: Slot) => Slot;

/** The same kernel over other slots. */
export function withSlots(kernel: Kernel, reads: Rename, writes: Rename): Kernel {
  switch (kernel.kind) {
    case "loop":
      return {
        ...kernel,
        reductions: kernel.reductions.map((reduction) => ({ ...reduction, value: withLoads(reduction.value, reads) })),
        stores: withStores(kernel.stores, reads, writes),
        ...(kernel.over !== undefined && { over: { from: reads(kernel.over.from), into: writes(kernel.over.into) } }),
      };
    case "matmul":
      return {
        ...kernel,
        ...withViews(kernel, reads),
        ...(kernel.plus && { plus: kernel.plus.map((product) => ({ ...product, ...withViews(product, reads) })) }),
        out: writes(kernel.out),
        ...(kernel.epilogue ? { epilogue: { ...kernel.epilogue, stores: withStores(kernel.epilogue.stores, reads, writes) } } : {}),
      };
    case "scatterAdd":
      return { ...kernel, indices: reads(kernel.indices), updates: reads(kernel.updates), out: writes(kernel.out) };
    case "copy":
      return { ...kernel, from: reads(kernel.from), to: writes(kernel.to) };
    case "composite":
      return { ...kernel, inputs: kernel.inputs.map(reads), outputs: kernel.outputs.map(writes) };
    case "group":
      throw new Error("Kernels are grouped last.");
  }
}

function withViews({ a, b }: Pick<MatmulKernel, "a" | "b">, reads: Rename): Pick<MatmulKernel, "a" | "b"> {
  const moved = (operand: MatrixOperand): MatrixOperand =>
    isComputed(operand)
      ? { value: withLoads(operand.value, reads), slots: operand.slots.map(reads) }
      : { ...operand, slot: reads(operand.slot) };
  return { a: moved(a), b: moved(b) };
}

function withStores(stores: readonly Store[], reads: Rename, writes: Rename): Store[] {
  return stores.map((store) => ({
    ...store,
    slot: writes(store.slot),
    index: withLoads(store.index, reads),
    value: withLoads(store.value, reads),
  }));
}

function withLoads<T extends Expr>(root: T, reads: Rename): T;
function withLoads(root: Expr, reads: Rename): Expr {
  const done = new Map<Expr, Expr>();
  // The operation stays, so that an index becomes an index.
  const visit = <T extends Expr>(expr: T): T => done.get(expr) as T;
  const rebuild = (expr: Expr): Expr => {
    switch (expr.op) {
      case "const":
      case "variable":
      case "accumulator":
        return expr;
      case "load": {
        const [slot, index] = [reads(expr.slot), visit(expr.index)];
        return slot === expr.slot && index === expr.index ? expr : { ...expr, slot, index };
      }
      case "unary":
      case "cast":
      case "given": {
        const x = visit(expr.x);
        return x === expr.x ? expr : { ...expr, x };
      }
      case "index": {
        const [a, b]: [Index, Index] = [visit(expr.a), visit(expr.b)];
        return a === expr.a && b === expr.b ? expr : { ...expr, a, b };
      }
      case "binary": {
        const [a, b] = [visit(expr.a), visit(expr.b)];
        return a === expr.a && b === expr.b ? expr : { ...expr, a, b };
      }
      case "select": {
        const [condition, a, b] = [visit(expr.condition), visit(expr.a), visit(expr.b)];
        return condition === expr.condition && a === expr.a && b === expr.b ? expr : { ...expr, condition, a, b };
      }
      case "random": {
        const [key0, key1, index] = [visit(expr.key0), visit(expr.key1), visit(expr.index)];
        return key0 === expr.key0 && key1 === expr.key1 && index === expr.index ? expr : { ...expr, key0, key1, index };
      }
    }
  };
  for (const expr of expressionsBelow([root])) done.set(expr, rebuild(expr));
  return visit(root);
}
