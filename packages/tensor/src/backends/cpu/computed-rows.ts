import { type Blocks, positionIn, unitsOf } from "../../kernels/blocks.js";
import { epilogueLoop } from "../../kernels/epilogue.js";
import { type Expr, ExprMakers, type Index } from "../../kernels/expr.js";
import type { LoopKernel, MatmulKernel, Reduction, Slot, Store } from "../../kernels/kernel.js";
import { isComputed } from "../../kernels/products.js";
import { type LoopProgram, lowerRows } from "../../kernels/wasm/lower.js";
import { SmallIntegers } from "../../kernels/wasm/small-integers.js";
import type { DType } from "../../tensor/dtype.js";
import { sizeOf } from "../../tensor/shape.js";
import { elementOf, walks } from "./computed.js";
import { type Factored, factored, grouped } from "./factored.js";
import { fewRows } from "./few-rows.js";
import { integerRowsSteps } from "./integer-rows.js";
import type { KernelLibrary } from "./library.js";
import { loopSteps, rowsStep } from "./loop.js";
import type { Step, StepList, Word } from "./steps.js";

/** Sums that a loop keeps in registers at most. */
const mostSums = 16;

/** A loop kernel that adds up products. */
interface Sums {
  readonly kernel: LoopKernel;
  /** What the lanes of its last outer axis are: elements of the result, parts of the sum of one, or nothing in particular. */
  readonly lanes: "elements" | "parts" | null;
  /** What is made of the left operand before, in scratch memory. */
  readonly before?: Before;
}

/** A loop over the left operand's blocks, which it lays out and adds up as the sums read them. */
interface Before {
  readonly kernel: LoopKernel;
  /** Where each of its results lies in scratch memory, in bytes. */
  readonly places: ReadonlyMap<Slot, number>;
  readonly bytes: number;
}

/**
 * The product of a few rows with an operand that is computed: a reduction, in which an element of the operand is in a register from when it
 * is made until it has been multiplied with each row. Null where there are more rows, or the right operand lies in memory.
 */
export function fewComputedSteps(kernel: MatmulKernel, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): StepList | null {
  if (!isComputed(kernel.b) || kernel.m > fewRows || kernel.plus || kernel.k === 0) return null;
  const first = integerSteps(kernel, dtypeOf, library) ?? stepsOfSums(sumsOf(kernel, dtypeOf), dtypeOf, library);
  if (!kernel.epilogue) return first;
  const then = loopSteps(epilogueLoop(kernel, kernel.epilogue), firstFree, dtypeOf, library);
  return { steps: [...first.steps, ...then.steps], scratchBytes: Math.max(first.scratchBytes, then.scratchBytes) };
}

/** The steps of a product whose right operand are columns of small integers; null where it is another. */
function integerSteps(kernel: MatmulKernel, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): StepList | null {
  const { b, batch, k, n } = kernel;
  const down = isComputed(b) ? walks(b, batch, [k, n], dtypeOf).row : null;
  return down && integerRowsSteps(kernel, down.blocks, dtypeOf, library);
}

function stepsOfSums(sums: Sums, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): StepList {
  return sums.lanes ? laneSteps(sums, sums.lanes, dtypeOf, library) : loopSteps(sums.kernel, firstFree, dtypeOf, library);
}

/** The steps of a kernel whose last outer axis are lanes. */
function laneSteps(
  { kernel, before }: Sums,
  lanes: "elements" | "parts",
  dtypeOf: (slot: Slot) => DType,
  library: KernelLibrary,
): StepList {
  const places = before?.places;
  const wordOf = (slot: Slot): Word => {
    const offset = places?.get(slot);
    return offset === undefined ? { kind: "slot", slot } : { kind: "scratch", offset };
  };
  const typeOf = (slot: Slot): DType => (places?.has(slot) ? "f32" : dtypeOf(slot));
  const whole = (program: LoopProgram, count: number): Step => rowsStep(program, { first: 0, count, all: count }, wordOf, typeOf, library);
  const program = lowerRows(kernel, "outer", lanes === "parts");
  const step = whole(program, sizeOf(program.kernel.outer.slice(0, -1)));
  if (!before) return { steps: [step], scratchBytes: 0 };
  const first = whole(lowerRows(before.kernel, "inner"), sizeOf(before.kernel.outer));
  return { steps: [first, step], scratchBytes: before.bytes };
}

/** Above the slots of any plan. */
const firstFree = 2 ** 30;

function sumsOf(kernel: MatmulKernel, dtypeOf: (slot: Slot) => DType): Sums {
  const { m, n, k, batch, a, b } = kernel;
  if (!isComputed(b)) throw new Error("The right operand is not computed.");
  const { row: down, column: across } = walks(b, batch, [k, n], dtypeOf);
  if (down && !(across && across.cost < down.cost)) return sumsAlongDepth(kernel, down.blocks, dtypeOf);
  if (across) return sumsAlongColumns(kernel, across.blocks, dtypeOf);
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

/** Where an element of a tensor of some sizes lies in row-major order. */
const placeIn = (make: ExprMakers, sizes: readonly number[], at: readonly Index[]): Index =>
  at.reduce<Index>((index, position, axis) => make.add(make.mul(index, make.int(sizes[axis] ?? 1)), position), make.int(0));

/** Where an element of the product lies in row-major order. */
function placeOf(make: ExprMakers, { batch, m, n }: MatmulKernel, batchAt: readonly Index[], row: Index, column: Index): Index {
  return placeIn(make, [...batch, m, n], [...batchAt, row, column]);
}

/** Slots of what is made of the left operand. */
const laidOutSlot: Slot = -1;
const sumsSlot: Slot = -2;

/**
 * Blocks of the depth: lanes are positions of the depth, which are added up at the end. Some columns share what is
 * read of the rows where there are registers for their sums.
 */
function sumsAlongDepth(kernel: MatmulKernel, blocks: Blocks, dtypeOf: (slot: Slot) => DType): Sums {
  const { m, n, k, batch, a, b } = kernel;
  const make = new ExprMakers();
  const abreast = m === 1 && n % 2 === 0 && blocks.lanes / 2 <= mostSums ? 2 : 1;
  const outer = [...batch, n / abreast, blocks.lanes];
  const batchAt = batch.map((size, axis) => make.variable(axis, size));
  const lane = make.variable(batch.length + 1, blocks.lanes);
  const small = new SmallIntegers(dtypeOf, blocks.lanes === 16 ? batch.length + 1 : null);
  const blockCount = k / blocks.size;
  const block = make.variable(outer.length, blockCount);
  const unitCount = unitsOf(blocks);
  const units = Array.from({ length: unitCount }, (_, unit) => positionIn(make, blocks, block, unit, lane));
  const columns = Array.from({ length: abreast }, (_, c) => {
    const column = make.add(make.mul(make.variable(batch.length, n / abreast), make.int(abreast)), make.int(c));
    const parts = units.map((depth) => factored(make, elementOf(make, b, batch, { batch: batchAt, row: depth, column }), lane, small));
    return { column, parts, groups: grouped(make, parts) };
  });
  const groups = columns[0]?.groups ?? [];
  const isLaidOut = blocks.step > 1 || isComputed(a) || a.columnStride !== 1 || dtypeOf(a.slot) !== "f32";
  const hasSums = groups.some(({ offset, shift }) => offset !== 0 || shift !== null);
  const before = isLaidOut || hasSums ? leftBlocks(kernel, blocks, isLaidOut, hasSums ? groups.map(({ units: list }) => list) : []) : null;
  const rowAt = (r: number): Index => placeIn(make, [...batch, m, blockCount], [...batchAt, make.int(r), block]);
  const leftOf = (r: number, unit: number): Expr => {
    if (!isLaidOut) return elementOf(make, a, batch, { batch: batchAt, row: make.int(r), column: units[unit] as Index }); // one a unit
    const start = make.add(make.mul(rowAt(r), make.int(blocks.size)), lane);
    return make.load("f32", laidOutSlot, make.add(start, make.int(unit * blocks.lanes)));
  };
  const reductions: Reduction[] = [];
  const stores: Store[] = [];
  const sum = (value: Expr): Expr => {
    reductions.push({ combine: "sum", value });
    return make.accumulator("f32", reductions.length - 1);
  };
  for (const { column, parts, groups: own } of columns) {
    // Units of one weight are mostly alike.
    const scale = parts[0]?.scale ?? 1;
    for (const r of rowsOf(m)) {
      // Units that share a factor are added up before they are multiplied with it.
      const terms = own.map(({ units: list, factor }) => {
        const products = list.map((unit) => {
          const { rest, scale: its } = parts[unit] as Factored; // one a unit
          return times(make, leftOf(r, unit), its === scale ? rest : times(make, rest, make.constant("f32", its / scale)));
        });
        return factor ? times(make, sumOf(make, products), factor) : sumOf(make, products);
      });
      let value = scaled(make, sum(sumOf(make, terms)), scale);
      const leftSum = (g: number): Expr => make.load("f32", sumsSlot, make.add(make.mul(rowAt(r), make.int(own.length)), make.int(g)));
      // Offsets of one weight are mostly alike, too.
      const offset = own.find((group) => group.offset !== 0)?.offset ?? 0;
      const offsets = own.flatMap(({ factor, offset: its }, g) => {
        if (its === 0) return [];
        const term = factor ? times(make, factor, leftSum(g)) : leftSum(g);
        return its === offset ? term : times(make, term, make.constant("f32", its / offset));
      });
      if (offsets.length > 0) value = make.binary("add", value, scaled(make, sum(sumOf(make, offsets)), offset));
      const shifts = own.flatMap(({ shift }, g) => (shift ? times(make, shift, leftSum(g)) : []));
      if (shifts.length > 0) value = make.binary("add", value, sum(sumOf(make, shifts)));
      stores.push({ scope: "row", slot: kernel.out, index: placeOf(make, kernel, batchAt, make.int(r), column), value });
    }
  }
  return { kernel: { kind: "loop", outer, inner: blockCount, reductions, stores }, lanes: "parts", ...(before && { before }) };
}

/** The left operand's blocks unit by unit, and the sum of each block over the units of each group. */
function leftBlocks({ m, k, batch, a }: MatmulKernel, blocks: Blocks, isLaidOut: boolean, groups: readonly (readonly number[])[]): Before {
  const make = new ExprMakers();
  const outer = [...batch, m, k / blocks.size];
  const at = outer.map((size, axis) => make.variable(axis, size));
  const [row, block] = at.slice(-2) as [Index, Index];
  const lane = make.variable(outer.length, blocks.lanes);
  const values = Array.from({ length: unitsOf(blocks) }, (_, unit) => {
    const column = positionIn(make, blocks, block, unit, lane);
    return elementOf(make, a, batch, { batch: at.slice(0, -2), row, column });
  });
  const place = placeIn(make, outer, at);
  const stores: Store[] = [];
  if (isLaidOut) {
    for (const [unit, value] of values.entries()) {
      const index = make.add(make.add(make.mul(place, make.int(blocks.size)), lane), make.int(unit * blocks.lanes));
      stores.push({ scope: "element", slot: laidOutSlot, index, value });
    }
  }
  const reductions = groups.map((units, g): Reduction => {
    const index = make.add(make.mul(place, make.int(groups.length)), make.int(g));
    stores.push({ scope: "row", slot: sumsSlot, index, value: make.accumulator("f32", g) });
    return {
      combine: "sum",
      value: sumOf(
        make,
        units.map((unit) => values[unit] as Expr),
      ),
    }; // one a unit
  });
  const rows = sizeOf(outer);
  const laidOutBytes = isLaidOut ? rows * blocks.size * 4 : 0;
  const places = new Map([
    ...(isLaidOut ? [[laidOutSlot, 0] as const] : []),
    ...(groups.length > 0 ? [[sumsSlot, laidOutBytes] as const] : []),
  ]);
  return {
    kernel: { kind: "loop", outer, inner: blocks.lanes, reductions, stores },
    places,
    bytes: laidOutBytes + rows * groups.length * 4,
  };
}

/** Blocks of the columns: lanes are columns. Rows share a block's elements while there are registers for all their sums. */
function sumsAlongColumns(kernel: MatmulKernel, blocks: Blocks, dtypeOf: (slot: Slot) => DType): Sums {
  const { m, n, k, batch, a, b } = kernel;
  const make = new ExprMakers();
  const isShared = (m * blocks.size) / 4 <= mostSums;
  const outer = [...batch, ...(isShared ? [] : [m]), n / blocks.size, blocks.lanes];
  const batchAt = batch.map((size, axis) => make.variable(axis, size));
  const block = make.variable(outer.length - 2, n / blocks.size);
  const lane = make.variable(outer.length - 1, blocks.lanes);
  const small = new SmallIntegers(dtypeOf, blocks.lanes === 16 ? outer.length - 1 : null);
  const depth = make.variable(outer.length, k);
  const columns = Array.from({ length: unitsOf(blocks) }, (_, unit) => positionIn(make, blocks, block, unit, lane));
  const parts = columns.map((column) => factored(make, elementOf(make, b, batch, { batch: batchAt, row: depth, column }), lane, small));
  const groups = grouped(make, parts);
  const reductions: Reduction[] = [];
  const stores: Store[] = [];
  const sum = (value: Expr): Expr => {
    reductions.push({ combine: "sum", value });
    return make.accumulator("f32", reductions.length - 1);
  };
  for (const row of isShared ? rowsOf(m).map((r) => make.int(r)) : [make.variable(batch.length, m)]) {
    const left = elementOf(make, a, batch, { batch: batchAt, row, column: depth });
    for (const { units, factor, offset, shift } of groups) {
      const weight = factor ? times(make, left, factor) : left;
      const added = [...(offset === 0 ? [] : [scaled(make, sum(weight), offset)]), ...(shift ? [sum(times(make, left, shift))] : [])];
      for (const unit of units) {
        const { rest, scale } = parts[unit] as Factored; // one a unit
        const value = sumOf(make, [scaled(make, sum(times(make, weight, rest)), scale), ...added]);
        stores.push({ scope: "row", slot: kernel.out, index: placeOf(make, kernel, batchAt, row, columns[unit] as Index), value });
      }
    }
  }
  return { kernel: { kind: "loop", outer, inner: k, reductions, stores }, lanes: "elements" };
}

/** A finished sum times a scale. */
const scaled = (make: ExprMakers, sum: Expr, scale: number): Expr => (scale === 1 ? sum : times(make, sum, make.constant("f32", scale)));

/** Neighbours are added first. */
function sumOf(make: ExprMakers, terms: readonly Expr[]): Expr {
  const half = Math.ceil(terms.length / 2);
  const [only] = terms;
  if (!only) return make.constant("f32", 0);
  return terms.length === 1 ? only : make.binary("add", sumOf(make, terms.slice(0, half)), sumOf(make, terms.slice(half)));
}
