import type { DType } from "../../tensor/dtype.js";
import { type Expr, expressionsBelow, operandsOf } from "../expr.js";
import type { Reduction, Slot } from "../kernel.js";
import { Analysis } from "./analysis.js";
import { type Code, extractLane, f32x4, i32, i32x4, type Local, laneMemory, memory, op } from "./assembler.js";
import type { Columns } from "./column-sums.js";
import { newScope, type Position, Values } from "./values.js";

/** Bytes that are kept for the steps of a loop at most: with what the loop reads they stay in the first-level cache. */
const mostKeptBytes = 16384;
const mostSteps = 1024;
/** Bytes for the sums of a tile's rows. */
export const mostSavedBytes = 16384;
/** Where, in the thread's own memory, the sums of rows that are not finished begin, and sums that rows have in common; what is kept comes first. */
export const scratchPlaces: { readonly rows: number; readonly shared: number } = {
  rows: mostKeptBytes,
  shared: mostKeptBytes + mostSavedBytes,
};

/**
 * What all lanes of a step share, as the scale of a block, computed before the loop over the steps for four of them at a time, or for four
 * rows of a tile. In the loop, where it would be computed as a scalar, it is one load; and a loop without what a conversion of f16 branches
 * to keeps more in registers.
 */
export class Ahead {
  readonly #values: Values;
  readonly #base: Position;
  readonly #sums: readonly Local[];
  /** The place of step 0, so that the place of a step follows from its number alone. */
  readonly #first: Local;
  readonly #bytesOfStep: 4 | 16;
  /** Steps whose values are kept at a time. */
  readonly steps: number;

  /** With `rows`, lanes are four rows one after another, of which the tile's row number `rows` is one. */
  constructor(
    readonly columns: Columns,
    readonly kept: readonly Expr[],
    readonly reductions: readonly Reduction[],
    readonly rows: { readonly row: Local; readonly steps: number } | null,
  ) {
    const { f, program, scalarMath, dtypes, pointers, outer, inner } = columns;
    const innerAxis = program.kernel.outer.length;
    const vectorAxis = rows ? innerAxis - 2 : innerAxis;
    const vector = rows ? (outer[vectorAxis] as Local) : inner; // rows are the axis before the lanes
    this.#values = new Values(f, { ...program, vectorAxis }, new Analysis(), scalarMath, dtypes, pointers, outer);
    this.#base = { row: newScope(), rowCode: f.here, step: null, inner, vector, lanes: 4, units: 1 };
    this.#sums = reductions.map(() => f.local("v128"));
    this.#bytesOfStep = rows ? 16 : 4;
    const most = Math.min(mostSteps, Math.floor(mostKeptBytes / this.#bytesOfStep / Math.max(1, kept.length) / 4) * 4);
    this.steps = rows?.steps ?? Math.min(most, Math.ceil(program.kernel.inner / 4) * 4);
    this.#first = f.local("i32");
  }

  /** Whether rows in fours have room for what is kept of so many steps. */
  static hasRoom(kept: readonly Expr[], steps: number): boolean {
    return kept.length * steps * 16 <= mostKeptBytes;
  }

  /** Sums begin at 0. */
  begin(): void {
    if (!this.rows) for (const sum of this.#sums) this.columns.f.emit(sum.set(f32x4(0)));
  }

  /** Computes the values of steps `from` to `end` and adds to the sums. */
  print(from: Local, end: Local): void {
    const { f, inner } = this.columns;
    f.emit(this.#first.set(op("i32.sub", f.param(2).get, op("i32.mul", from.get, i32(this.#bytesOfStep)))));
    f.emit(inner.set(from.get));
    if (this.rows) {
      f.if(op("i32.eqz", op("i32.and", this.rows.row.get, i32(3))), () => this.#printRows(from, end));
      f.emit(this.#first.set(op("i32.add", this.#first.get, this.#laneBytes())));
      return;
    }
    const whole = f.let("i32", op("i32.add", from.get, op("i32.and", op("i32.sub", end.get, from.get), i32(-4))));
    for (const lanes of [4, 1] as const)
      f.while(inner, (lanes === 4 ? whole : end).get, i32(lanes), () => this.#step({ ...this.#base, step: newScope(), lanes }));
  }

  #printRows(from: Local, end: Local): void {
    const { f, inner } = this.columns;
    const place = f.let("i32", this.#sharedPlace());
    for (const sum of this.#sums) f.emit(sum.set(f32x4(0)));
    f.while(inner, end.get, i32(1), () => this.#step({ ...this.#base, step: newScope() }));
    const before = (i: number): Code => memory("v128.load", scratchPlaces.shared + i * 16, place.get);
    f.if(from.get, () => {
      for (const [i, sum] of this.#sums.entries()) f.emit(sum.set(op("f32x4.add", sum.get, before(i))));
    });
    for (const [i, sum] of this.#sums.entries()) f.emit(memory("v128.store", scratchPlaces.shared + i * 16, place.get, sum.get));
  }

  #laneBytes(): Code {
    return op("i32.shl", op("i32.and", this.rows?.row.get ?? i32(0), i32(3)), i32(2));
  }

  /** Where the sums of four rows lie, less where such sums begin. */
  #sharedPlace(): Code {
    const { f } = this.columns;
    const four = op("i32.shr_u", this.rows?.row.get ?? i32(0), i32(2));
    return op("i32.add", f.param(2).get, op("i32.mul", four, i32(this.#sums.length * 16)));
  }

  #step(at: Position): void {
    const { f } = this.columns;
    const place = f.let("i32", this.#place());
    for (const [i, expr] of this.kept.entries()) {
      const value = this.#values.vector(expr, 0, at);
      const offset = i * this.steps * this.#bytesOfStep;
      if (at.lanes === 4) f.emit(memory("v128.store", offset, place.get, value));
      else f.emit(laneMemory("v128.store32_lane", offset, 0, place.get, value));
    }
    for (const [i, { value }] of this.reductions.entries()) {
      const sum = this.#sums[i] as Local; // one a reduction
      const vector = this.#values.vector(value, 0, at);
      f.emit(sum.set(op("f32x4.add", sum.get, at.lanes === 4 ? vector : op("v128.and", vector, i32x4(-1, 0, 0, 0)))));
    }
  }

  #place(): Code {
    return op("i32.add", this.#first.get, op("i32.shl", this.columns.inner.get, i32(Math.log2(this.#bytesOfStep))));
  }

  /** The code that loads each kept value, in all lanes, within the loop. */
  loads(): Map<Expr, () => Code> {
    const bytes = this.steps * this.#bytesOfStep;
    return new Map(this.kept.map((expr, i) => [expr, () => memory("v128.load32_splat", i * bytes, this.#place())] as const));
  }

  /** The finished sum of each reduction. */
  totals(): Local[] {
    const { f } = this.columns;
    if (this.rows) {
      const place = f.let("i32", op("i32.add", this.#sharedPlace(), this.#laneBytes()));
      return this.#sums.map((_, i) => f.let("f32", memory("f32.load", scratchPlaces.shared + i * 16, place.get)));
    }
    return this.#sums.map((sum) => {
      const [a, b, c, d] = [0, 1, 2, 3].map((lane) => extractLane("f32", lane, sum.get)) as [Code, Code, Code, Code];
      return f.let("f32", op("f32.add", op("f32.add", a, b), op("f32.add", c, d)));
    });
  }

  /** Sums that are kept in locals between parts of a loop. */
  get locals(): readonly Local[] {
    return this.rows ? [] : this.#sums;
  }
}

/**
 * The largest parts of some values that are the same in all lanes, differ from step to step, and take more than the load of an f32. As
 * many as may be kept.
 */
export function sharedParts(
  roots: readonly Expr[],
  lanewise: (expr: Expr) => boolean,
  innerAxis: number,
  dtypes: (slot: Slot) => DType,
): Expr[] {
  const parts = new Set<Expr>();
  const seen = new Set<Expr>();
  const stack = [...roots];
  for (let expr = stack.pop(); expr; expr = stack.pop()) {
    if (seen.has(expr)) continue;
    seen.add(expr);
    const differs = (expr.axes & (1 << innerAxis)) !== 0;
    if (lanewise(expr)) stack.push(...operandsOf(expr));
    else if (differs && expr.dtype === "f32" && takesMore(expr, dtypes)) parts.add(expr);
  }
  return parts.size > mostParts ? [] : [...parts];
}

const mostParts = 32;

function takesMore(expr: Expr, dtypes: (slot: Slot) => DType): boolean {
  if (expr.op === "load") return dtypes(expr.slot) !== "f32";
  return [...expressionsBelow([expr])].some(({ op: kind }) => kind === "load");
}
