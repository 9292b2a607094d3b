import { type Blocks, positionIn, unitsOf } from "../../kernels/blocks.js";
import { type Expr, ExprMakers, type Index } from "../../kernels/expr.js";
import type { LoopKernel, MatmulKernel, Reduction, Slot, Store } from "../../kernels/kernel.js";
import { sizeOf } from "../../tensor/shape.js";
import { elementOf, laidOutSlot, sumsSlot } from "./computed.js";

/** Sums that a loop keeps in registers at most. */
export const mostSums = 16;

/** A loop kernel that adds up products of a few rows with a computed operand. */
export interface Sums {
  readonly kernel: LoopKernel;
  /** What the lanes of its last outer axis are: elements of the result, parts of the sum of one, or nothing in particular. */
  readonly lanes: "elements" | "parts" | null;
  /** What is made of the left operand before, in scratch memory. */
  readonly before?: Before;
}

/** A loop over the left operand's blocks, which it lays out and adds up as the sums read them. */
export interface Before {
  readonly kernel: LoopKernel;
  /** Where each of its results lies in scratch memory, in bytes. */
  readonly places: ReadonlyMap<Slot, number>;
  readonly bytes: number;
}

/** a · b. */
export const times = (make: ExprMakers, a: Expr, b: Expr): Expr => make.binary("mul", a, b);

/** Numbers of m rows. */
export const rowsOf = (m: number): number[] => Array.from({ length: m }, (_, r) => r);

/** Where an element of a tensor of some sizes lies in row-major order. */
export const placeIn = (make: ExprMakers, sizes: readonly number[], at: readonly Index[]): Index =>
  at.reduce<Index>((index, position, axis) => make.add(make.mul(index, make.int(sizes[axis] ?? 1)), position), make.int(0));

/** Where an element of the product lies in row-major order. */
export function placeOf(make: ExprMakers, { batch, m, n }: MatmulKernel, batchAt: readonly Index[], row: Index, column: Index): Index {
  return placeIn(make, [...batch, m, n], [...batchAt, row, column]);
}

/** A finished sum times a scale. */
export const scaled = (make: ExprMakers, sum: Expr, scale: number): Expr =>
  scale === 1 ? sum : times(make, sum, make.constant("f32", scale));

/** Neighbours are added first. */
export function sumOf(make: ExprMakers, terms: readonly Expr[]): Expr {
  const half = Math.ceil(terms.length / 2);
  const [only] = terms;
  if (!only) return make.constant("f32", 0);
  return terms.length === 1 ? only : make.binary("add", sumOf(make, terms.slice(0, half)), sumOf(make, terms.slice(half)));
}

/** The left operand's blocks unit by unit, and the sum of each block over the units of each group. */
export function leftBlocks(
  { m, k, batch, a }: MatmulKernel,
  blocks: Blocks,
  isLaidOut: boolean,
  groups: readonly (readonly number[])[],
): Before {
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
