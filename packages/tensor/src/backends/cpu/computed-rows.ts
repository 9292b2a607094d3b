import { type Blocks, positionIn, unitsOf } from "../../kernels/blocks.js";
import { epilogueLoop } from "../../kernels/epilogue.js";
import { type Expr, ExprMakers, type Index } from "../../kernels/expr.js";
import type { MatmulKernel, Reduction, Slot, Store } from "../../kernels/kernel.js";
import { isComputed } from "../../kernels/products.js";
import { type LoopProgram, lowerRows } from "../../kernels/wasm/lower.js";
import { SmallIntegers } from "../../kernels/wasm/small-integers.js";
import type { DType } from "../../tensor/dtype.js";
import { sizeOf } from "../../tensor/shape.js";
import { elementOf, laidOutSlot, sumsSlot, walks } from "./computed.js";
import { groupedWalk, sumsAlongColumns, sumsOfGroups } from "./computed-columns.js";
import { leftBlocks, mostSums, placeIn, placeOf, rowsOf, type Sums, scaled, sumOf, times } from "./computed-sums.js";
import { type Factored, factored, grouped } from "./factored.js";
import { fewRows } from "./few-rows.js";
import { integerRowsSteps } from "./integer-rows.js";
import type { KernelLibrary } from "./library.js";
import { loopSteps, rowsStep } from "./loop.js";
import type { Step, StepList, Word } from "./steps.js";

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
  const groups = groupedWalk(b, batch, [k, n], dtypeOf);
  const least = Math.min(down?.cost ?? Number.POSITIVE_INFINITY, across?.cost ?? Number.POSITIVE_INFINITY);
  // At equal loads the one that computes less an element.
  if (groups && groups.cost <= least) return sumsOfGroups(kernel, groups, dtypeOf);
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
