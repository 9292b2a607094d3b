import { affine } from "../../kernels/affine.js";
import { type Blocks, type Held, positionIn, unitsOf, type Walk, walkOf } from "../../kernels/blocks.js";
import { type Expr, ExprMakers, type Index } from "../../kernels/expr.js";
import type { LoadOperand, MatmulKernel, Reduction, Slot, Store } from "../../kernels/kernel.js";
import { substitute } from "../../kernels/substitute.js";
import { SmallIntegers } from "../../kernels/wasm/small-integers.js";
import type { DType } from "../../tensor/dtype.js";
import { elementOf, once, sumsSlot } from "./computed.js";
import { leftBlocks, mostSums, placeIn, placeOf, rowsOf, type Sums, scaled, sumOf, times } from "./computed-sums.js";
import { type Factored, factored, grouped } from "./factored.js";

/** Blocks of the columns: lanes are columns. Rows share a block's elements while there are registers for all their sums. */
export function sumsAlongColumns(kernel: MatmulKernel, blocks: Blocks, dtypeOf: (slot: Slot) => DType): Sums {
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

/** A walk along the columns, so many positions of the depth at a time, in all of which a column's numbers have one factor or one number added. */
export interface GroupedWalk extends Walk {
  readonly positions: number;
}

/** How many positions of the depth are tried: more are more code than they save. */
const positionCounts = [32, 16, 8] as const;
/** Vectors of products in one turn of the loop at most. */
const mostVectors = 512;
/** A number for a variable that no kernel has. */
const positionAxis = 29;

/** How columns of an operand [k, n] are walked whose scales are those of groups of rows, as GPTQ and AWQ keep them; null where it is another. */
export function groupedWalk(
  { value, slots }: LoadOperand,
  batch: readonly number[],
  [k, n]: readonly [number, number],
  dtypeOf: (slot: Slot) => DType,
): GroupedWalk | null {
  const rank = batch.length;
  return once(value, `grouped ${rank} ${k} ${n} ${slots.map(dtypeOf).join()}`, () => {
    for (const positions of positionCounts) {
      if (k % positions !== 0) continue;
      const make = new ExprMakers();
      const position = make.variable(positionAxis, positions);
      const at = make.add(make.mul(make.variable(rank, k / positions), make.int(positions)), position);
      const element = substitute(value, make, (axis, size) => (axis === rank ? at : make.variable(axis, size)));
      const { rest, factor, shift } = affine(make, element, position);
      if (!(factor || shift) || (rest.axes & position.axes) === 0) continue;
      const held: Held = { axis: positionAxis, positions };
      const walk = walkOf(element, rank + 1, n, new SmallIntegers(dtypeOf, rank + 1), held);
      if (walk && (walk.blocks.size / 4) * positions <= mostVectors) return { ...walk, positions };
    }
    return null;
  });
}

/**
 * Blocks of the columns, some positions p of the depth at a time: Σ x_p (f · r_p + s) = f · Σ x_p r_p + s · Σ x_p, where the factor f and what is
 * added, s, are those of a column in all of these positions. The sums of x are made before.
 */
export function sumsOfGroups(kernel: MatmulKernel, { blocks, positions }: GroupedWalk, dtypeOf: (slot: Slot) => DType): Sums {
  const { m, n, k, batch, a, b } = kernel;
  const make = new ExprMakers();
  const isShared = (m * blocks.size) / 4 <= mostSums;
  const outer = [...batch, ...(isShared ? [] : [m]), n / blocks.size, blocks.lanes];
  const batchAt = batch.map((size, axis) => make.variable(axis, size));
  const columnBlock = make.variable(outer.length - 2, n / blocks.size);
  const lane = make.variable(outer.length - 1, blocks.lanes);
  const small = new SmallIntegers(dtypeOf, blocks.lanes === 16 ? outer.length - 1 : null);
  const depthBlocks = k / positions;
  const depthBlock = make.variable(outer.length, depthBlocks);
  const columns = Array.from({ length: unitsOf(blocks) }, (_, unit) => positionIn(make, blocks, columnBlock, unit, lane));
  const units = columns.map((column) =>
    unitOf(make, positions, lane, small, (position) =>
      elementOf(make, b, batch, { batch: batchAt, row: make.add(make.mul(depthBlock, make.int(positions)), position), column }),
    ),
  );
  const before = leftBlocks(kernel, { size: positions, step: 1, lanes: positions }, false, [[0]]);
  const reductions: Reduction[] = [];
  const stores: Store[] = [];
  for (const row of isShared ? rowsOf(m).map((r) => make.int(r)) : [make.variable(batch.length, m)]) {
    const lefts = Array.from({ length: positions }, (_, p) =>
      elementOf(make, a, batch, { batch: batchAt, row, column: make.add(make.mul(depthBlock, make.int(positions)), make.int(p)) }),
    );
    const leftSum = make.load("f32", sumsSlot, placeIn(make, [...batch, m, depthBlocks], [...batchAt, row, depthBlock]));
    for (const [unit, { rests, factor, added }] of units.entries()) {
      const products = sumInChains(
        make,
        lefts.map((left, p) => times(make, left, rests[p] as Expr)),
      ); // one a position
      const product = factor ? times(make, products, factor) : products;
      const value = added ? make.binary("add", product, times(make, leftSum, added)) : product;
      reductions.push({ combine: "sum", value });
      const index = placeOf(make, kernel, batchAt, row, columns[unit] as Index);
      stores.push({ scope: "row", slot: kernel.out, index, value: make.accumulator("f32", reductions.length - 1) });
    }
  }
  return { kernel: { kind: "loop", outer, inner: depthBlocks, reductions, stores }, lanes: "elements", before };
}

/** A unit of columns at some positions: numbers r of each position, of which factor · r + added are the elements. */
interface Unit {
  readonly rests: readonly Expr[];
  readonly factor: Expr | null;
  readonly added: Expr | null;
}

function unitOf(make: ExprMakers, positions: number, lane: Index, small: SmallIntegers, elementAt: (position: Index) => Expr): Unit {
  const variable = make.variable(positionAxis, positions);
  const { rest, factor, offset, shift } = affine(make, elementAt(variable), variable);
  const numbers = Array.from({ length: positions }, (_, p) =>
    substitute(rest, make, (axis, size) => (axis === positionAxis ? make.int(p) : make.variable(axis, size))),
  );
  const parts = numbers.map((number) => factored(make, number, lane, small));
  const [first] = parts;
  // Integers of one weight are mostly found in one way.
  const isAlike = parts.every((part) => !part.factor && !part.shift && part.scale === first?.scale && part.offset === first.offset);
  const [scale, moved] = isAlike && first ? [first.scale, first.offset + offset] : [1, offset];
  const constant = (value: number): Expr => make.constant("f32", value);
  const whole = factor && scale !== 1 ? times(make, factor, constant(scale)) : (factor ?? (scale === 1 ? null : constant(scale)));
  const own = moved === 0 ? null : factor ? times(make, factor, constant(moved)) : constant(moved);
  return {
    rests: isAlike ? parts.map((part) => part.rest) : numbers,
    factor: whole,
    added: own && shift ? make.binary("add", own, shift) : (own ?? shift),
  };
}

/** Sums that are added to by turns: a sum is there for its next term only after some instructions. */
const chainCount = 2;

function sumInChains(make: ExprMakers, terms: readonly Expr[]): Expr {
  const chains = Array.from({ length: Math.min(chainCount, terms.length) }, (_, chain) =>
    terms.filter((_, i) => i % chainCount === chain).reduce((sum, term) => make.binary("add", sum, term)),
  );
  return sumOf(make, chains);
}
