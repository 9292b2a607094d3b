import { type Blocks, laneCount, positionIn, unitsOf } from "../../kernels/blocks.js";
import { type Expr, ExprMakers, type Index, isInvariant } from "../../kernels/expr.js";
import type { LoopKernel, MatmulKernel, Reduction, Slot, Store } from "../../kernels/kernel.js";
import { isComputed } from "../../kernels/products.js";
import { substitute } from "../../kernels/substitute.js";
import { lowerRows } from "../../kernels/wasm/lower.js";
import type { DType } from "../../tensor/dtype.js";
import { sizeOf } from "../../tensor/shape.js";
import { elementOf, scratchSlot, walks } from "./computed.js";
import { fewRows } from "./few-rows.js";
import type { KernelLibrary } from "./library.js";
import { loopSteps, rowsStep } from "./loop.js";
import { movedSteps } from "./move.js";
import { roundUp } from "./round.js";
import type { Step, StepList, Word } from "./steps.js";

/** Sums that a loop keeps in registers at most. */
const mostSums = 16;

/** A loop kernel that adds up products, and into how many parts it leaves the sum of each element of the result: they follow one another. */
interface Sums {
  readonly kernel: LoopKernel;
  readonly parts: number;
  /** Its last outer axis are the lanes of a vector. */
  readonly isInLanes: boolean;
}

/**
 * The product of a few rows with an operand that is computed: a reduction, in which an element of the operand is in a register from when it
 * is made until it has been multiplied with each row. Null where there are more rows, or the right operand lies in memory.
 */
export function fewComputedSteps(kernel: MatmulKernel, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): StepList | null {
  const { m, n, k, batch, epilogue, out } = kernel;
  if (!isComputed(kernel.b) || m > fewRows || kernel.plus || k === 0) return null;
  const { kernel: sums, parts, isInLanes } = sumsOf(kernel);
  const typeOf = (slot: Slot): DType => (slot === scratchSlot ? "f32" : dtypeOf(slot));
  const isDirect = parts === 1 && !epilogue;
  const partBytes = isDirect ? 0 : roundUp(sizeOf(batch) * m * n * parts * 4, 64);
  const wordOf = (slot: Slot): Word =>
    slot !== scratchSlot ? { kind: "slot", slot } : isDirect ? { kind: "slot", slot: out } : { kind: "scratch", offset: 0 };
  const steps: Step[] = [];
  let scratchBytes = partBytes;
  const run = (loop: LoopKernel): void => {
    const list = loopSteps(loop, firstFree, typeOf, library);
    const from = scratchBytes;
    const placed = (word: Exclude<Word, number>): Word => {
      if (word.kind === "slot" && word.slot === scratchSlot) return wordOf(scratchSlot);
      return word.kind === "scratch" ? { kind: "scratch", offset: word.offset + from } : word;
    };
    steps.push(...movedSteps(list.steps, placed));
    scratchBytes += list.scratchBytes;
  };
  if (isInLanes) {
    const program = lowerRows(sums, "outer");
    const rows = sizeOf(program.kernel.outer.slice(0, -1));
    steps.push(rowsStep(program, { first: 0, count: rows, all: rows }, wordOf, typeOf, library));
  } else run(sums);
  if (!isDirect) run(finish(kernel, parts));
  return { steps, scratchBytes };
}

/** Above the slots of any plan. */
const firstFree = 2 ** 30;

function sumsOf(kernel: MatmulKernel): Sums {
  const { m, n, k, batch, a, b } = kernel;
  if (!isComputed(b)) throw new Error("The right operand is not computed.");
  const { row: down, column: across } = walks(b, batch, k, n);
  if (down && !(across && across.cost < down.cost)) return sumsAlongDepth(kernel, down.blocks);
  if (across) return sumsAlongColumns(kernel, across.blocks);
  const make = new ExprMakers();
  const outer = [...batch, n];
  const batchAt = batch.map((size, axis) => make.variable(axis, size));
  const [column, depth] = [make.variable(batch.length, n), make.variable(outer.length, k)];
  const right = elementOf(make, b, batch, { batch: batchAt, row: depth, column });
  const reductions = rowsOf(m).map((r): Reduction => {
    const left = elementOf(make, a, batch, { batch: batchAt, row: make.int(r), column: depth });
    return { combine: "sum", value: times(make, left, right) };
  });
  const stores = rowsOf(m).map(
    (r): Store => ({
      scope: "row",
      slot: scratchSlot,
      index: placeOf(make, kernel, batchAt, make.int(r), column),
      value: make.accumulator("f32", r),
    }),
  );
  return { kernel: { kind: "loop", outer, inner: k, reductions, stores }, parts: 1, isInLanes: false };
}

const times = (make: ExprMakers, a: Expr, b: Expr): Expr => make.binary("mul", a, b);

const rowsOf = (m: number): number[] => Array.from({ length: m }, (_, r) => r);

/** Where an element of the product lies in row-major order. */
function placeOf(make: ExprMakers, { batch, m, n }: MatmulKernel, batchAt: readonly Index[], row: Index, column: Index): Index {
  const matrix = batch.reduce<Index>(
    (index, size, axis) => make.add(make.mul(index, make.int(size)), batchAt[axis] ?? make.int(0)),
    make.int(0),
  );
  return make.add(make.mul(make.add(make.mul(matrix, make.int(m)), row), make.int(n)), column);
}

/** Blocks of the depth: lanes are positions of the depth, and a result is left as the sums of four lanes. */
function sumsAlongDepth(kernel: MatmulKernel, blocks: Blocks): Sums {
  const { m, n, k, batch, a, b } = kernel;
  const make = new ExprMakers();
  const outer = [...batch, n, laneCount];
  const batchAt = batch.map((size, axis) => make.variable(axis, size));
  const [column, lane] = [make.variable(batch.length, n), make.variable(batch.length + 1, laneCount)];
  const block = make.variable(outer.length, k / blocks.size);
  const units = Array.from({ length: unitsOf(blocks) }, (_, unit) => positionIn(make, blocks, block, unit, lane));
  const rights = units.map((depth) => factored(make, elementOf(make, b, batch, { batch: batchAt, row: depth, column }), lane));
  const reductions = rowsOf(m).map((r): Reduction => {
    // Units that share a factor are added up before they are multiplied with it.
    const groups = new Map<Expr | null, Expr[]>();
    for (const [unit, depth] of units.entries()) {
      const { rest, factor } = rights[unit] as Factored;
      const left = elementOf(make, a, batch, { batch: batchAt, row: make.int(r), column: depth });
      const group = groups.get(factor);
      const term = times(make, left, rest);
      if (group) group.push(term);
      else groups.set(factor, [term]);
    }
    const sums = [...groups].map(([factor, terms]) => (factor ? times(make, sumOf(make, terms), factor) : sumOf(make, terms)));
    return { combine: "sum", value: sumOf(make, sums) };
  });
  const stores = rowsOf(m).map((r): Store => {
    const place = placeOf(make, kernel, batchAt, make.int(r), column);
    const index = make.add(make.mul(place, make.int(laneCount)), lane);
    return { scope: "row", slot: scratchSlot, index, value: make.accumulator("f32", r) };
  });
  return { kernel: { kind: "loop", outer, inner: k / blocks.size, reductions, stores }, parts: laneCount, isInLanes: true };
}

/** Blocks of the columns: lanes are columns. Rows share a block's elements while there are registers for all their sums. */
function sumsAlongColumns(kernel: MatmulKernel, blocks: Blocks): Sums {
  const { m, n, k, batch, a, b } = kernel;
  const make = new ExprMakers();
  const units = unitsOf(blocks);
  const isShared = m * units <= mostSums;
  const outer = [...batch, ...(isShared ? [] : [m]), n / blocks.size, laneCount];
  const batchAt = batch.map((size, axis) => make.variable(axis, size));
  const block = make.variable(outer.length - 2, n / blocks.size);
  const lane = make.variable(outer.length - 1, laneCount);
  const depth = make.variable(outer.length, k);
  const reductions: Reduction[] = [];
  const stores: Store[] = [];
  for (const row of isShared ? rowsOf(m).map((r) => make.int(r)) : [make.variable(batch.length, m)]) {
    const left = elementOf(make, a, batch, { batch: batchAt, row, column: depth });
    for (let unit = 0; unit < units; unit++) {
      const column = positionIn(make, blocks, block, unit, lane);
      const { rest, factor } = factored(make, elementOf(make, b, batch, { batch: batchAt, row: depth, column }), lane);
      const index = placeOf(make, kernel, batchAt, row, column);
      stores.push({ scope: "row", slot: scratchSlot, index, value: make.accumulator("f32", reductions.length) });
      reductions.push({ combine: "sum", value: times(make, factor ? times(make, left, factor) : left, rest) });
    }
  }
  return { kernel: { kind: "loop", outer, inner: k, reductions, stores }, parts: 1, isInLanes: true };
}

interface Factored {
  readonly rest: Expr;
  /** The same in all lanes. */
  readonly factor: Expr | null;
}

/** An element as a factor that is the same in all lanes, times the rest. */
function factored(make: ExprMakers, value: Expr, lane: Expr): Factored {
  if (value.op !== "binary" || value.kind !== "mul") return { rest: value, factor: null };
  const [a, b] = [factored(make, value.a, lane), factored(make, value.b, lane)];
  const isSame = (x: Expr): boolean => lane.op !== "variable" || isInvariant(x, lane.axis);
  if (isSame(value.a)) return { rest: b.rest, factor: b.factor ? times(make, value.a, b.factor) : value.a };
  if (isSame(value.b)) return { rest: a.rest, factor: a.factor ? times(make, value.b, a.factor) : value.b };
  return { rest: value, factor: null };
}

/** Neighbours are added first. */
function sumOf(make: ExprMakers, terms: readonly Expr[]): Expr {
  const half = Math.ceil(terms.length / 2);
  const [only] = terms;
  if (!only) return make.constant("f32", 0);
  return terms.length === 1 ? only : make.binary("add", sumOf(make, terms.slice(0, half)), sumOf(make, terms.slice(half)));
}

/** Adds up the parts of each element and does with it what the kernel asks for. */
function finish({ m, n, batch, out, epilogue }: MatmulKernel, parts: number): LoopKernel {
  const make = new ExprMakers();
  const outer = epilogue?.outer ?? [sizeOf(batch) * m];
  const inner = epilogue?.inner ?? n;
  const place = [...outer, inner].reduce<Index>(
    (index, size, axis) => make.add(make.mul(index, make.int(size)), make.variable(axis, size)),
    make.int(0),
  );
  const loads = Array.from({ length: parts }, (_, part) =>
    make.load("f32", scratchSlot, make.add(make.mul(place, make.int(parts)), make.int(part))),
  );
  const product = sumOf(make, loads);
  const known = new Map<Expr, Expr>();
  const read = <T extends Expr>(expr: T) => substitute(expr, make, (axis, size) => make.variable(axis, size), known, product);
  const stores = (epilogue?.stores ?? []).map((store): Store => ({ ...store, index: read(store.index), value: read(store.value) }));
  const isReplaced = stores.some(({ slot }) => slot === out);
  const plain: Store = { scope: "element", slot: out, index: place, value: product };
  return { kind: "loop", outer, inner, reductions: [], stores: isReplaced ? stores : [plain, ...stores] };
}
