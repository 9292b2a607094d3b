import type { DType } from "../../tensor/dtype.js";
import { bodySlots, scoreAxes } from "../bodies.js";
import { type Expr, ExprMakers } from "../expr.js";
import type { Slot } from "../kernel.js";
import { Analysis } from "./analysis.js";
import { type Code, type FunctionBuilder, f32x4, i32, type Local, memory, op } from "./assembler.js";
import { add, groupKeys, least, mul, product, rowBytes, sub } from "./attention-panels.js";
import { type Sight, visibilityMask } from "./attention-visibility.js";
import { describeExprs } from "./describe.js";
import { choose } from "./math.js";
import type { ScalarMath } from "./scalar-math.js";
import { newScope, type Position, Values } from "./values.js";

/** What becomes of scores in a kernel: the bodies of its composite over (batch, head, query, key), in powers of two. */
export interface ScoreBodies {
  /** The score from the scaled product, and for gradients its slope. */
  readonly exprs: readonly Expr[];
  readonly dtypes: (slot: Slot) => DType;
}

/** A text that is equal for bodies that one kernel serves; empty without bodies. */
export function describeBodies(bodies: ScoreBodies | null): string {
  if (!bodies) return "";
  const slots = bodySlots(bodies.exprs);
  return `;${slots.map(bodies.dtypes).join()};${describeExprs(bodies.exprs, slots)}`;
}

/** Where the scores of a call lie: what is the same for all of them, by axis from the first on, and the axis along which lanes lie. */
export interface ScorePlace {
  readonly outer: readonly Local[];
  readonly vectorAxis: number;
}

/** The place of scores of one head, `head` counting through the batch, whose elements have `heads` each, with lanes along the queries. */
export function headPlace(f: FunctionBuilder, head: Local, heads: Local): ScorePlace {
  const outer = [f.let("i32", op("i32.div_u", head.get, heads.get)), f.let("i32", op("i32.rem_u", head.get, heads.get))];
  return { outer, vectorAxis: scoreAxes.query };
}

/** Bodies inside a kernel; the slots' addresses stand from argument `slotsAt` on. */
export class BodyPrinter {
  readonly #values: Values;
  readonly count: number;

  constructor(
    readonly f: FunctionBuilder,
    scalarMath: ScalarMath,
    readonly bodies: ScoreBodies,
    { outer, vectorAxis }: ScorePlace,
    slotsAt: number,
  ) {
    const pointers = new Map(
      bodySlots(bodies.exprs).map((slot, i) => [slot, f.let("i32", memory("i32.load", (slotsAt + i) * 4, f.param(0).get))]),
    );
    this.count = bodies.exprs.length;
    // Lanes are not along the innermost axis, which scores along the keys do not have.
    const innerAxis = vectorAxis + 1;
    const program = {
      kernel: { kind: "loop", outer: Array.from({ length: innerAxis }, () => 1), inner: 1, reductions: [], stores: [] },
      makers: new ExprMakers(),
      ...{
        chunk: null,
        isTile: false,
        isRanged: false,
        addsLanes: false,
        segments: [],
        vectorAxis,
        units: 1,
        rowsPerTile: 1,
        tileCount: 1,
        work: 0,
      },
    } as const;
    this.#values = new Values(f, program, new Analysis(), scalarMath, bodies.dtypes, pointers, outer);
  }

  /** Each body of some vectors of scores, the first of which begins at `vector` along its axis; `inner` is the place on the axis behind, if there is one. */
  apply(scores: readonly Local[], vector: Local, inner: Local): Local[][] {
    const units = scores.length;
    // Fresh scopes: nothing is known from other scores.
    const at: Position = { row: newScope(), rowCode: this.f.here, step: newScope(), inner, vector, lanes: 4, units };
    this.#values.accumulators[0] = [...scores];
    return this.bodies.exprs.map((expr) => scores.map((_, unit) => this.f.let("v128", this.#values.vector(expr, unit, at))));
  }
}

export interface ScoreOperands extends Sight {
  /** Keys packed by fours, [depth][4] each, from the first on; a panel of queries, [depth][8]. */
  readonly keys: Local;
  readonly queries: Local;
  readonly depth: Local;
  /** Positions of the first key and of the panel's first query. */
  readonly firstKey: Local;
  readonly firstQuery: Local;
  /** Keys to compute, a multiple of four. */
  readonly count: Local;
  readonly bodies: BodyPrinter | null;
}

/**
 * Computes keys · queries and what the bodies make of it, -∞ where the query does not see the key: four keys after the other, with which
 * `use` finds the tile filled. `slopes` is the tile of the second body, 0 where the query does not see the key; null without one.
 */
export function scores(
  f: FunctionBuilder,
  tile: readonly Local[],
  operands: ScoreOperands,
  use: (slopes: readonly Local[] | null) => void,
): void {
  const { keys, queries, depth, firstKey, firstQuery, count, bodies } = operands;
  const mask = visibilityMask(f, operands, firstQuery);
  const key = f.let("i32", firstKey.get);
  const end = f.let("i32", add(firstKey.get, count.get));
  const from = f.let("i32", keys.get);
  const slopes = bodies && bodies.count > 1 ? tile.map(() => f.local("v128")) : null;
  f.while(key, end.get, i32(groupKeys), () => {
    for (const local of tile) f.emit(local.set(f32x4(0)));
    product(f, tile, { a: from.get, aLane: 4, aStep: 16, b: queries.get, bStep: i32(rowBytes), depth: depth.get });
    for (let lane = 0; bodies && lane < groupKeys; lane++) {
      const own = [tile[lane * 2] as Local, tile[lane * 2 + 1] as Local] as const;
      const place = least(f, add(key.get, i32(lane)), sub(operands.keyCount.get, i32(1)));
      const [values = [], derivatives = []] = bodies.apply(own, firstQuery, place);
      for (const [j, value] of values.entries()) f.emit((own[j] as Local).set(value.get));
      for (const [j, slope] of derivatives.entries()) f.emit((slopes as Local[])[lane * 2 + j]?.set(slope.get) ?? []);
    }
    mask(key, (isHidden) => {
      for (const [index, sum] of tile.entries()) {
        const hidden = (): Code => isHidden(index >> 1, index & 1);
        f.emit(sum.set(choose(hidden(), f32x4(Number.NEGATIVE_INFINITY), sum.get)));
        const slope = slopes?.[index];
        if (slope) f.emit(slope.set(op("v128.andnot", slope.get, hidden())));
      }
    });
    use(slopes);
    f.emit(from.set(add(from.get, mul(depth.get, i32(groupKeys * 4)))));
  });
}
