import { type Expr, expressionsBelow, type Index, operandsOf } from "./expr.js";
import {
  type Kernel,
  type MatmulKernel,
  type MatrixOperand,
  type Reduction,
  rootsOf,
  type SingleKernel,
  type Slot,
  type Store,
} from "./kernel.js";
import { isComputed, productsOf, slotsOfOperand } from "./products.js";

interface Touched {
  readonly reads: readonly Slot[];
  readonly writes: readonly Slot[];
}

/** Found once: kernels never change, and planning asks of each many times. */
const known = new WeakMap<Kernel, Touched>();

function touchedBy(kernel: Kernel): Touched {
  const found = known.get(kernel) ?? { reads: findReads(kernel), writes: findWrites(kernel) };
  known.set(kernel, found);
  return found;
}

/** The slots that a kernel reads. */
export function readsOf(kernel: Kernel): readonly Slot[] {
  return touchedBy(kernel).reads;
}

/** The slots that a kernel writes. */
export function writesOf(kernel: Kernel): readonly Slot[] {
  return touchedBy(kernel).writes;
}

/** Notes what a kernel reads and writes where that is known. */
export function note(kernel: Kernel, reads: readonly Slot[], writes: readonly Slot[]): void {
  known.set(kernel, { reads, writes });
}

function findReads(kernel: Kernel): Slot[] {
  switch (kernel.kind) {
    case "loop":
      return [...new Set([...loadedBy(kernel.reductions, kernel.stores), ...(kernel.over === undefined ? [] : [kernel.over.from])])];
    case "matmul":
      return [
        ...new Set([
          ...productsOf(kernel).flatMap(({ a, b }) => [...slotsOfOperand(a), ...slotsOfOperand(b)]),
          ...loadedBy([], kernel.epilogue?.stores ?? []),
        ]),
      ];
    case "scatterAdd":
      return [kernel.indices, kernel.updates];
    case "copy":
      return [kernel.from];
    case "composite":
      return [...kernel.inputs];
    case "group":
      return [...new Set(kernel.members.flatMap(readsOf))];
  }
}

function loadedBy(reductions: readonly Reduction[], stores: readonly Store[]): Slot[] {
  const slots = new Set<Slot>();
  for (const expr of expressionsBelow(rootsOf({ reductions, stores }))) if (expr.op === "load") slots.add(expr.slot);
  return [...slots];
}

function findWrites(kernel: Kernel): Slot[] {
  switch (kernel.kind) {
    case "loop":
      return kernel.stores.map((store) => store.slot);
    case "matmul":
      return [...new Set([kernel.out, ...(kernel.epilogue?.stores.map((store) => store.slot) ?? [])])];
    case "scatterAdd":
      return [kernel.out];
    case "copy":
      return [kernel.to];
    case "composite":
      return [...kernel.outputs];
    case "group":
      return kernel.members.flatMap(writesOf);
  }
}

type Rename = (slot: Slot) => Slot;

/** The same kernel over other slots. `changing` are its expressions that load, or need one that does, where they are known. */
export function renamedKernel(
  kernel: SingleKernel,
  reads: Rename,
  writes: Rename,
  changing: readonly Expr[] = changingIn(kernel),
): SingleKernel {
  const renamed = new Renamed(reads, changing);
  switch (kernel.kind) {
    case "loop":
      return {
        ...kernel,
        reductions: kernel.reductions.map((reduction) => ({ ...reduction, value: renamed.of(reduction.value) })),
        stores: withStores(kernel.stores, renamed, writes),
        ...(kernel.over !== undefined && { over: { from: reads(kernel.over.from), into: writes(kernel.over.into) } }),
      };
    case "matmul":
      return {
        ...kernel,
        ...withOperands(kernel, renamed),
        ...(kernel.plus && { plus: kernel.plus.map((product) => ({ ...product, ...withOperands(product, renamed) })) }),
        out: writes(kernel.out),
        ...(kernel.epilogue ? { epilogue: { ...kernel.epilogue, stores: withStores(kernel.epilogue.stores, renamed, writes) } } : {}),
      };
    case "scatterAdd":
      return { ...kernel, indices: reads(kernel.indices), updates: reads(kernel.updates), out: writes(kernel.out) };
    case "copy":
      return { ...kernel, from: reads(kernel.from), to: writes(kernel.to) };
    case "composite":
      return {
        ...kernel,
        inputs: kernel.inputs.map(reads),
        outputs: kernel.outputs.map(writes),
        ...(kernel.bodies && { bodies: kernel.bodies.map((body) => renamed.of(body)) }),
      };
  }
}

function withOperands({ a, b }: Pick<MatmulKernel, "a" | "b">, renamed: Renamed): Pick<MatmulKernel, "a" | "b"> {
  const moved = (operand: MatrixOperand): MatrixOperand =>
    isComputed(operand)
      ? { value: renamed.of(operand.value), slots: operand.slots.map(renamed.reads) }
      : { ...operand, slot: renamed.reads(operand.slot) };
  return { a: moved(a), b: moved(b) };
}

function withStores(stores: readonly Store[], renamed: Renamed, writes: Rename): Store[] {
  return stores.map((store) => ({
    ...store,
    slot: writes(store.slot),
    index: renamed.of(store.index),
    value: renamed.of(store.value),
  }));
}

/** The expressions of a kernel that change with its slots, operands first: those that load, or need one that does. */
export function changingIn(kernel: SingleKernel): Expr[] {
  const found = new Set<Expr>();
  for (const expr of expressionsBelow(expressionsOf(kernel)))
    if (expr.op === "load" || operandsOf(expr).some((operand) => found.has(operand))) found.add(expr);
  return [...found];
}

/** The expressions that a kernel is made of. */
function expressionsOf(kernel: SingleKernel): Expr[] {
  if (kernel.kind === "loop") return rootsOf(kernel);
  if (kernel.kind === "composite") return [...(kernel.bodies ?? [])];
  if (kernel.kind !== "matmul") return [];
  const computed = productsOf(kernel).flatMap(({ a, b }) => [a, b].flatMap((operand) => (isComputed(operand) ? operand.value : [])));
  return [...computed, ...rootsOf({ reductions: [], stores: kernel.epilogue?.stores ?? [] })];
}

/** Expressions over other slots, what they share once. */
class Renamed {
  readonly #made = new Map<Expr, Expr>();

  constructor(
    readonly reads: Rename,
    changing: readonly Expr[],
  ) {
    for (const expr of changing) this.#made.set(expr, this.#rebuilt(expr));
  }

  /** The operation stays, so that an index becomes an index. */
  of<T extends Expr>(expr: T): T {
    return (this.#made.get(expr) ?? expr) as T;
  }

  #rebuilt(expr: Expr): Expr {
    switch (expr.op) {
      case "const":
      case "variable":
      case "accumulator":
        return expr;
      case "load": {
        const [slot, index] = [this.reads(expr.slot), this.of(expr.index)];
        return slot === expr.slot && index === expr.index ? expr : { ...expr, slot, index };
      }
      case "unary":
      case "cast":
      case "given": {
        const x = this.of(expr.x);
        return x === expr.x ? expr : { ...expr, x };
      }
      case "index": {
        const [a, b]: [Index, Index] = [this.of(expr.a), this.of(expr.b)];
        return a === expr.a && b === expr.b ? expr : { ...expr, a, b };
      }
      case "binary": {
        const [a, b] = [this.of(expr.a), this.of(expr.b)];
        return a === expr.a && b === expr.b ? expr : { ...expr, a, b };
      }
      case "select": {
        const [condition, a, b] = [this.of(expr.condition), this.of(expr.a), this.of(expr.b)];
        return condition === expr.condition && a === expr.a && b === expr.b ? expr : { ...expr, condition, a, b };
      }
      case "random": {
        const [key0, key1, stream, index] = [this.of(expr.key0), this.of(expr.key1), this.of(expr.stream), this.of(expr.index)];
        const isSame = key0 === expr.key0 && key1 === expr.key1 && stream === expr.stream && index === expr.index;
        return isSame ? expr : { ...expr, key0, key1, stream, index };
      }
    }
  }
}
