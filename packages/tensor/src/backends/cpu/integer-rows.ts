import { type Blocks, firstOfUnit, positionIn, unitsOf } from "../../kernels/blocks.js";
import { type Expr, ExprMakers, type Index } from "../../kernels/expr.js";
import type { LoopKernel, MatmulKernel, MatrixView, Reduction, Slot, Store } from "../../kernels/kernel.js";
import { isComputed } from "../../kernels/products.js";
import { describeIntegerRows, type IntegerRows, printIntegerRows } from "../../kernels/wasm/integer-rows.js";
import { slotsOf } from "../../kernels/wasm/loop.js";
import { lowerRows } from "../../kernels/wasm/lower.js";
import { blocksOfTile, printSixteenBits, type SixteenBits, sixteenBitsPlaces } from "../../kernels/wasm/sixteen-bits.js";
import { SmallIntegers } from "../../kernels/wasm/small-integers.js";
import type { DType } from "../../tensor/dtype.js";
import { largest } from "../../tensor/extremes.js";
import { sizeOf } from "../../tensor/shape.js";
import { elementOf } from "./computed.js";
import { affineInteger, type Group, grouped, type IntegerPart } from "./factored.js";
import type { KernelLibrary } from "./library.js";
import { vectorNanoseconds } from "./loop.js";
import { standIn } from "./stand-ins.js";
import type { Step, StepList, Word } from "./steps.js";

/** Stand for what is made of the rows: integers, scales, sums from which groups start, sums of f32. */
const slots = { integers: standIn(), scales: standIn(), starts: standIn(), sums: standIn() };
/** Lanes of a unit. */
const lanesOfUnit = 16;
/** Up to so many sums of columns are kept in registers. */
const mostAbreast = 8;

/** A column of the right operand: for each unit of a block its integers, and groups of units with a factor. */
interface Column {
  readonly column: Index;
  readonly parts: readonly IntegerPart[];
  readonly groups: readonly Group[];
}

/**
 * The product of a few rows with an operand of small integers times factors, blocks of the depth at a time: the rows are made integers of 16 bits
 * with a scale a block, so that eight products are added up in one instruction, exactly. What is lost is half of the last of 16 bits of each row's
 * largest magnitude in a block. Null where the operand is another, or the rows are not contiguous f32.
 */
export function integerRowsSteps(
  kernel: MatmulKernel,
  blocks: Blocks,
  dtypeOf: (slot: Slot) => DType,
  library: KernelLibrary,
): StepList | null {
  const { m, n, k, batch, a, b } = kernel;
  if (!isComputed(b) || isComputed(a) || dtypeOf(a.slot) !== "f32" || sizeOf(batch) !== 1 || blocks.lanes !== lanesOfUnit) return null;
  const make = new ExprMakers();
  const abreast = n % 2 === 0 && 2 * m <= mostAbreast ? 2 : 1;
  const outer = [n / abreast, lanesOfUnit];
  const [lane, block] = [make.variable(1, lanesOfUnit), make.variable(2, k / blocks.size)];
  const batchAt = batch.map(() => make.int(0));
  const small = new SmallIntegers(dtypeOf, 1);
  const columns: Column[] = [];
  for (let c = 0; c < abreast; c++) {
    const column = make.add(make.mul(make.variable(0, n / abreast), make.int(abreast)), make.int(c));
    const parts: IntegerPart[] = [];
    for (let unit = 0; unit < unitsOf(blocks); unit++) {
      const row = positionIn(make, blocks, block, unit, lane);
      const part = affineInteger(make, elementOf(make, b, batch, { batch: batchAt, row, column }), lane, small);
      if (!part) return null;
      parts.push(part);
    }
    columns.push({ column, parts, groups: grouped(make, parts) });
  }
  const first = columns[0] as Column; // one column at least
  const rows = sixteenBitsOf(kernel, blocks, first);
  if (!rows) return null;
  const spec: IntegerRows = {
    program: lowerRows(loopOf(make, kernel, { outer, inner: k / blocks.size, columns, rows }), "outer", true),
    abreast,
    hasSums: rows.hasSums,
    rows,
    slots,
  };
  return stepsOf(spec, a, dtypeOf, library);
}

/** How the rows are made integers for such columns; null where sums of them would not fit. */
function sixteenBitsOf({ m, k }: MatmulKernel, blocks: Blocks, { parts, groups }: Column): SixteenBits | null {
  const high = largest(
    parts.map((part) => part.high),
    0,
  );
  const fits = groups.every(({ units, offset }) => units.length * 4 * (high + Math.abs(offset)) * 32767 < 2 ** 31);
  if (!fits || m * k >= 2 ** 26) return null;
  return {
    m,
    blocks: k / blocks.size,
    units: unitsOf(blocks),
    firsts: parts.map((_, unit) => firstOfUnit(blocks, unit)),
    step: blocks.step,
    groups: groups.map(({ units, offset }) => ({ units, offset })),
    kinds: parts.map(({ kind }) => kind),
    hasSums: groups.some(({ shift }) => shift !== null),
  };
}

/** What the loop over blocks computes, as a kernel: see `IntegerRows`. */
function loopOf(
  make: ExprMakers,
  { m, n, out }: MatmulKernel,
  given: { readonly outer: readonly number[]; readonly inner: number; readonly columns: readonly Column[]; readonly rows: SixteenBits },
): LoopKernel {
  const { outer, inner, columns, rows } = given;
  const reductions: Reduction[] = [];
  const push = (value: Expr): void => void reductions.push({ combine: "sum", value });
  const block = make.variable(2, inner);
  // The scale of a single row is part of the factors.
  const scale = m === 1 ? make.load("f32", slots.scales, block) : null;
  for (const { parts, groups } of columns) {
    for (const { rest } of parts) push(rest);
    for (const { factor } of groups)
      push(factor && scale ? make.binary("mul", factor, scale) : (factor ?? scale ?? make.constant("f32", 1)));
  }
  if (rows.hasSums)
    for (const { groups } of columns)
      for (let r = 0; r < m; r++) {
        const terms = groups.flatMap(({ shift }, g) => {
          const at = make.add(make.mul(make.add(block, make.int(r * inner)), make.int(groups.length)), make.int(g));
          return shift ? make.binary("mul", shift, make.load("f32", slots.sums, at)) : [];
        });
        push(terms.reduce((sum, term) => make.binary("add", sum, term)));
      }
  // What is read beside.
  for (const slot of [slots.integers, slots.scales, slots.starts]) push(make.load("f32", slot, make.int(0)));
  const stores = columns.flatMap(({ column }, c) =>
    Array.from({ length: m }, (_, r): Store => {
      const index = make.add(column, make.int(r * n));
      return { scope: "row", slot: out, index, value: make.accumulator("f32", c * m + r) };
    }),
  );
  return { kind: "loop", outer, inner, reductions, stores };
}

function stepsOf(spec: IntegerRows, a: MatrixView, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): StepList {
  const { program, rows } = spec;
  const places = sixteenBitsPlaces(rows);
  const scratch = (place: keyof typeof slots): Word => ({ kind: "scratch", offset: places[place] });
  const wordOf = (slot: Slot): Word => {
    const place = (Object.keys(slots) as (keyof typeof slots)[]).find((name) => slots[name] === slot);
    return place ? scratch(place) : { kind: "slot", slot };
  };
  const typeOf = (slot: Slot): DType => (slot < 0 ? "f32" : dtypeOf(slot));
  const view = { offset: a.offset, rowStride: a.rowStride, columnStride: a.columnStride };
  const made: Step = {
    entry: library.entry(`sixteenBits;${JSON.stringify([rows, view])}`, (module, _, name) => printSixteenBits(module, rows, view, name)),
    tiles: rows.m * Math.ceil(rows.blocks / blocksOfTile(rows)),
    words: [{ kind: "slot", slot: a.slot }, ...(["integers", "scales", "starts", "sums"] as const).map(scratch)],
    cost: rows.m * rows.blocks * rows.units * 16 * vectorNanoseconds,
  };
  const count = program.kernel.outer[0] ?? 0;
  // A unit takes some ten instructions, and two more for each further row.
  const work = count * spec.abreast * rows.blocks * rows.units * (8 + 2 * rows.m);
  const multiplied: Step = {
    entry: library.entry(describeIntegerRows(spec, typeOf), (module, scalarMath, name) =>
      printIntegerRows(module, scalarMath, spec, typeOf, name),
    ),
    tiles: Math.ceil(count / program.rowsPerTile),
    words: [...slotsOf(program).map(wordOf), 0, count],
    cost: work * vectorNanoseconds,
  };
  return { steps: [made, multiplied], scratchBytes: places.bytes };
}
