import { type Blocks, positionIn, unitsOf } from "../../kernels/blocks.js";
import { epilogueLoop } from "../../kernels/epilogue.js";
import { type Expr, ExprMakers, type Index } from "../../kernels/expr.js";
import type { LoopKernel, MatmulKernel, Reduction, Slot, Store } from "../../kernels/kernel.js";
import { isComputed } from "../../kernels/products.js";
import { lowerRows } from "../../kernels/wasm/lower.js";
import { SmallIntegers } from "../../kernels/wasm/small-integers.js";
import type { DType } from "../../tensor/dtype.js";
import { sizeOf } from "../../tensor/shape.js";
import { elementOf, walks } from "./computed.js";
import { fewRows } from "./few-rows.js";
import type { KernelLibrary } from "./library.js";
import { loopSteps, rowsStep } from "./loop.js";
import type { StepList } from "./steps.js";

/** Sums that a loop keeps in registers at most. */
const mostSums = 16;

/** A loop kernel that adds up products. */
interface Sums {
  readonly kernel: LoopKernel;
  /** What the lanes of its last outer axis are: elements of the result, parts of the sum of one, or nothing in particular. */
  readonly lanes: "elements" | "parts" | null;
}

/**
 * The product of a few rows with an operand that is computed: a reduction, in which an element of the operand is in a register from when it
 * is made until it has been multiplied with each row. Null where there are more rows, or the right operand lies in memory.
 */
export function fewComputedSteps(kernel: MatmulKernel, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): StepList | null {
  if (!isComputed(kernel.b) || kernel.m > fewRows || kernel.plus || kernel.k === 0) return null;
  const { kernel: sums, lanes } = sumsOf(kernel, new SmallIntegers(dtypeOf));
  const first = lanes ? laneSteps(sums, lanes, dtypeOf, library) : loopSteps(sums, firstFree, dtypeOf, library);
  if (!kernel.epilogue) return first;
  const then = loopSteps(epilogueLoop(kernel, kernel.epilogue), firstFree, dtypeOf, library);
  return { steps: [...first.steps, ...then.steps], scratchBytes: Math.max(first.scratchBytes, then.scratchBytes) };
}

/** The step of a kernel whose last outer axis are lanes. */
function laneSteps(kernel: LoopKernel, lanes: "elements" | "parts", dtypeOf: (slot: Slot) => DType, library: KernelLibrary): StepList {
  const program = lowerRows(kernel, "outer", lanes === "parts");
  const count = sizeOf(program.kernel.outer.slice(0, -1));
  const step = rowsStep(program, { first: 0, count, all: count }, (slot) => ({ kind: "slot", slot }), dtypeOf, library);
  return { steps: [step], scratchBytes: 0 };
}

/** Above the slots of any plan. */
const firstFree = 2 ** 30;

function sumsOf(kernel: MatmulKernel, small: SmallIntegers): Sums {
  const { m, n, k, batch, a, b } = kernel;
  if (!isComputed(b)) throw new Error("The right operand is not computed.");
  const { row: down, column: across } = walks(b, batch, k, n);
  if (down && !(across && across.cost < down.cost)) return sumsAlongDepth(kernel, down.blocks, small);
  if (across) return sumsAlongColumns(kernel, across.blocks, small);
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
      slot: kernel.out,
      index: placeOf(make, kernel, batchAt, make.int(r), column),
      value: make.accumulator("f32", r),
    }),
  );
  return { kernel: { kind: "loop", outer, inner: k, reductions, stores }, lanes: null };
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

/**
 * Blocks of the depth: lanes are positions of the depth, which are added up at the end. Some columns share what is
 * read of the rows where that takes more than a load, and there are registers for their sums.
 */
function sumsAlongDepth(kernel: MatmulKernel, blocks: Blocks, small: SmallIntegers): Sums {
  const { m, n, k, batch, a, b } = kernel;
  const make = new ExprMakers();
  const mayTake = (count: number): boolean => n % count === 0 && (count * m * blocks.lanes) / 4 <= mostSums;
  const abreast = blocks.step > 1 && mayTake(4) ? 4 : mayTake(2) && m === 1 ? 2 : 1;
  const outer = [...batch, n / abreast, blocks.lanes];
  const batchAt = batch.map((size, axis) => make.variable(axis, size));
  const lane = make.variable(batch.length + 1, blocks.lanes);
  const block = make.variable(outer.length, k / blocks.size);
  const units = Array.from({ length: unitsOf(blocks) }, (_, unit) => positionIn(make, blocks, block, unit, lane));
  const reductions: Reduction[] = [];
  const stores: Store[] = [];
  for (let c = 0; c < abreast; c++) {
    const column = make.add(make.mul(make.variable(batch.length, n / abreast), make.int(abreast)), make.int(c));
    const rights = units.map((depth) => {
      return factored(make, elementOf(make, b, batch, { batch: batchAt, row: depth, column }), lane, small);
    });
    // Units of one weight are mostly alike.
    const scale = rights[0]?.scale ?? 1;
    for (const r of rowsOf(m)) {
      // Units that share a factor are added up before they are multiplied with it.
      const groups = new Map<Expr | null, Expr[]>();
      for (const [unit, depth] of units.entries()) {
        const { rest, factor, scale: own } = rights[unit] as Factored;
        const left = elementOf(make, a, batch, { batch: batchAt, row: make.int(r), column: depth });
        const group = groups.get(factor);
        const term = times(make, left, own === scale ? rest : times(make, rest, make.constant("f32", own / scale)));
        if (group) group.push(term);
        else groups.set(factor, [term]);
      }
      const sums = [...groups].map(([factor, terms]) => (factor ? times(make, sumOf(make, terms), factor) : sumOf(make, terms)));
      const index = placeOf(make, kernel, batchAt, make.int(r), column);
      stores.push({ scope: "row", slot: kernel.out, index, value: scaled(make, reductions.length, scale) });
      reductions.push({ combine: "sum", value: sumOf(make, sums) });
    }
  }
  return { kernel: { kind: "loop", outer, inner: k / blocks.size, reductions, stores }, lanes: "parts" };
}

/** Blocks of the columns: lanes are columns. Rows share a block's elements while there are registers for all their sums. */
function sumsAlongColumns(kernel: MatmulKernel, blocks: Blocks, small: SmallIntegers): Sums {
  const { m, n, k, batch, a, b } = kernel;
  const make = new ExprMakers();
  const units = unitsOf(blocks);
  const isShared = (m * units * blocks.lanes) / 4 <= mostSums;
  const outer = [...batch, ...(isShared ? [] : [m]), n / blocks.size, blocks.lanes];
  const batchAt = batch.map((size, axis) => make.variable(axis, size));
  const block = make.variable(outer.length - 2, n / blocks.size);
  const lane = make.variable(outer.length - 1, blocks.lanes);
  const depth = make.variable(outer.length, k);
  const reductions: Reduction[] = [];
  const stores: Store[] = [];
  for (const row of isShared ? rowsOf(m).map((r) => make.int(r)) : [make.variable(batch.length, m)]) {
    const left = elementOf(make, a, batch, { batch: batchAt, row, column: depth });
    for (let unit = 0; unit < units; unit++) {
      const column = positionIn(make, blocks, block, unit, lane);
      const { rest, factor, scale } = factored(make, elementOf(make, b, batch, { batch: batchAt, row: depth, column }), lane, small);
      const index = placeOf(make, kernel, batchAt, row, column);
      stores.push({ scope: "row", slot: kernel.out, index, value: scaled(make, reductions.length, scale) });
      reductions.push({ combine: "sum", value: times(make, factor ? times(make, left, factor) : left, rest) });
    }
  }
  return { kernel: { kind: "loop", outer, inner: k, reductions, stores }, lanes: "elements" };
}

interface Split {
  readonly rest: Expr;
  /** The same in all lanes. */
  readonly factor: Expr | null;
}

interface Factored extends Split {
  /** By what a sum of such elements is multiplied at its end. */
  readonly scale: number;
}

/** An element as a factor that is the same in all lanes, times the rest. Of a small integer, the rest is what a lane's top byte makes of it. */
function factored(make: ExprMakers, value: Expr, lane: Index, small: SmallIntegers): Factored {
  const { rest, factor } = split(make, value, lane);
  const isByte = small.of(rest);
  if (rest.dtype !== "f32" || !isByte || isByte.high > 127) return { rest, factor, scale: 1 };
  const shifted = make.binary("shl", make.cast("i32", rest), make.int(24));
  return { rest: make.cast("f32", shifted), factor, scale: 2 ** -24 };
}

/** A finished sum times a scale. */
function scaled(make: ExprMakers, sum: number, scale: number): Expr {
  const value = make.accumulator("f32", sum);
  return scale === 1 ? value : times(make, value, make.constant("f32", scale));
}

function split(make: ExprMakers, value: Expr, lane: Index): Split {
  if (value.op !== "binary" || value.kind !== "mul") return { rest: value, factor: null };
  const [a, b] = [split(make, value.a, lane), split(make, value.b, lane)];
  const isSame = (x: Expr): boolean => (x.axes & lane.axes) === 0;
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
