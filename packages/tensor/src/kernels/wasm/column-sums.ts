import type { DType } from "../../tensor/dtype.js";
import type { Expr } from "../expr.js";
import type { Reduction, Slot } from "../kernel.js";
import { Ahead, mostSavedBytes, scratchPlaces, sharedParts } from "./ahead.js";
import { type Code, extractLane, type FunctionBuilder, i32, type Local, memory, op } from "./assembler.js";
import { type LoopProgram, reductionGroups } from "./lower.js";
import { combine, combineScalar, identity, tree } from "./reduction.js";
import type { ScalarMath } from "./scalar-math.js";
import type { Position, Values } from "./values.js";

/** What the loops over one group of columns are written with. */
export interface Columns {
  readonly f: FunctionBuilder;
  readonly program: LoopProgram;
  readonly scalarMath: ScalarMath;
  readonly dtypes: (slot: Slot) => DType;
  readonly pointers: ReadonlyMap<Slot, Local>;
  readonly values: Values;
  readonly outer: readonly Local[];
  readonly inner: Local;
  readonly innerStart: Local;
  readonly innerEnd: Local;
}

/** A loop that is cut into parts of some steps, between which the sums lie in memory. */
export interface Parts {
  readonly steps: number;
  /** Number of the present row in its tile. */
  readonly row: Local;
  /** Where its sums lie, in the thread's own memory, less where such sums begin. */
  readonly saved: Local;
  readonly savedBytes: number;
}

/** With so many steps, what a few rows read of a matrix stays in the first-level cache until the next row reads its neighbours. */
const stepsOfPart = 128;

/**
 * Rows of a tile that read neighbours of one line of memory, step after step, read it from the nearest cache when all of them take a part of
 * the loop before any takes the next. Null where lanes are not columns, or there is nothing to add up.
 */
export function partsOf({ f, program }: Columns): Parts | null {
  const { kernel, isRanged, addsLanes, units, rowsPerTile, vectorAxis } = program;
  const isTurned = vectorAxis !== kernel.outer.length;
  const isOneSum = reductionGroups(kernel).length === 1 && kernel.stores.every(({ scope }) => scope === "row");
  const savedBytes = kernel.reductions.length * units * 16;
  if (!isRanged || addsLanes || !isTurned || !isOneSum || rowsPerTile === 1 || kernel.inner <= stepsOfPart) return null;
  return savedBytes * rowsPerTile > mostSavedBytes ? null : { steps: stepsOfPart, row: f.local("i32"), saved: f.local("i32"), savedBytes };
}

/** A value as a factor that is the same in all lanes, times the rest. */
interface SharedFactor {
  readonly factor: Expr;
  readonly rest: Expr;
}

/** With more sums at a time, what units share no longer fits in registers. */
const mostWithFactors = 2;

/** The loop that computes a group of reductions for a group of columns. */
export class ColumnSums {
  readonly #reductions: readonly Reduction[];
  readonly #own: readonly number[];
  readonly #shared: readonly number[];
  readonly #factors: readonly SharedFactor[] | null;
  readonly #accumulators: readonly (readonly Local[])[];
  readonly #ahead: Ahead | null;

  constructor(
    readonly columns: Columns,
    group: readonly number[],
    readonly base: Position,
    readonly parts: Parts | null,
  ) {
    const { f, program } = columns;
    const { reductions } = program.kernel;
    const isShared = (k: number): boolean => program.isRanged && this.#isSharedSum(reductions[k] as Reduction); // k numbers them
    this.#own = group.filter((k) => !isShared(k));
    this.#shared = group.filter(isShared);
    this.#reductions = this.#own.map((k) => reductions[k] as Reduction);
    this.#factors = this.#sharedFactors();
    const count = this.#factors ? 1 : base.units;
    this.#accumulators = this.#reductions.map(() => Array.from({ length: count }, () => f.local("v128")));
    this.#ahead = program.isRanged ? this.#aheadOf() : null;
  }

  /** Runs over the steps from `innerStart` to `innerEnd`; `loop` writes a loop from where `inner` stands. */
  print(loop: (end: Local, body: (at: Position) => void) => void): void {
    const { f, inner, innerStart, innerEnd } = this.columns;
    this.#start();
    const body = (at: Position): void => {
      if (this.#factors) this.#addWithFactors(this.#factors, at);
      else this.#addUnits(at);
    };
    if (this.#ahead) this.#loopAfter(this.#ahead, (end) => loop(end, body));
    else {
      f.emit(inner.set(innerStart.get));
      loop(innerEnd, body);
    }
    if (this.parts) this.#save(this.parts);
  }

  /** Makes the finished sums known as accumulators. */
  finish(): void {
    const { f, program, values } = this.columns;
    const results = program.addsLanes ? this.#totals() : this.#accumulators;
    for (const [k, locals] of results.entries()) values.accumulators[this.#own[k] ?? 0] = [...locals];
    for (const [k, total] of (this.#ahead?.totals() ?? []).entries()) {
      const inAllUnits = (): Local[] => new Array(this.base.units).fill(f.let("v128", op("f32x4.splat", total.get)));
      values.accumulators[this.#shared[k] ?? 0] = program.addsLanes ? [total] : inAllUnits();
    }
  }

  /** Sums begin at nothing. */
  #start(): void {
    const { f } = this.columns;
    for (const [k, locals] of this.#accumulators.entries())
      for (const local of locals) f.emit(local.set(identity(this.#reductions[k] as Reduction))); // one a list
    this.#ahead?.begin();
  }

  /** Adds the sums of the parts before: short sums, added up, round less than a long one. */
  #save({ saved }: Parts): void {
    const { f, innerStart } = this.columns;
    const sums = this.#accumulators.flatMap((locals, k) => locals.map((local) => ({ local, reduction: this.#reductions[k] as Reduction }))); // one a list
    for (const [i, reduction] of (this.#ahead?.reductions ?? []).entries()) {
      const local = this.#ahead?.locals[i];
      if (local) sums.push({ local, reduction });
    }
    f.if(innerStart.get, () => {
      for (const [i, { local, reduction }] of sums.entries())
        f.emit(local.set(combine(reduction, local.get, memory("v128.load", scratchPlaces.rows + i * 16, saved.get))));
    });
    for (const [i, { local }] of sums.entries()) f.emit(memory("v128.store", scratchPlaces.rows + i * 16, saved.get, local.get));
  }

  /** A sum of what all lanes share. */
  #isSharedSum({ combine: kind, value }: Reduction): boolean {
    return kind === "sum" && value.dtype === "f32" && !this.columns.values.isLanewise(value);
  }

  /** What is computed before the loop, whole sums among it; null where there is nothing. */
  #aheadOf(): Ahead | null {
    const { values, program, dtypes } = this.columns;
    const { kernel } = program;
    const roots = this.#reductions.map(({ value }) => value);
    const kept = sharedParts(roots, (expr) => values.isLanewise(expr), kernel.outer.length, dtypes);
    if (kept.length + this.#shared.length === 0) return null;
    const sums = this.#shared.map((k) => kernel.reductions[k] as Reduction); // k numbers them
    const { parts } = this;
    const inFours = parts && program.rowsPerTile % 4 === 0 && (kernel.outer.at(-2) ?? 1) % 4 === 0 && Ahead.hasRoom(kept, parts.steps);
    return new Ahead(this.columns, kept, sums, inFours ? parts : null);
  }

  /** The loop in stretches, each after what is computed ahead for it. */
  #loopAfter(ahead: Ahead, loop: (end: Local) => void): void {
    const { f, inner, innerStart, innerEnd, values } = this.columns;
    const code: Code[] = [];
    f.into(code, () => {
      const from = f.let("i32", innerStart.get);
      const end = f.local("i32");
      f.while(from, innerEnd.get, i32(ahead.steps), () => {
        f.emit(end.set(op("i32.add", from.get, i32(ahead.steps))));
        f.if(op("i32.gt_u", end.get, innerEnd.get), () => f.emit(end.set(innerEnd.get)));
        ahead.print(from, end);
        f.emit(inner.set(from.get));
        values.ahead = ahead.loads();
        loop(end);
        values.ahead = new Map();
      });
    });
    f.emit(code);
  }

  /** For each reduction that ends as the sum of all lanes the factor that all of these share; null where one has none. */
  #sharedFactors(): SharedFactor[] | null {
    const { program, values } = this.columns;
    if (!program.addsLanes || this.#reductions.length > mostWithFactors) return null;
    const factors = this.#reductions.flatMap(({ combine: kind, value }) => (kind === "sum" && values.sharedFactor(value)) || []);
    return factors.length === this.#reductions.length ? factors : null;
  }

  /** One step, unit by unit, so that what reductions share of a unit is in a register for all of them; then the factors. */
  #addWithFactors(factors: readonly SharedFactor[], at: Position): void {
    const { f, values } = this.columns;
    const steps = factors.map(({ rest }) => f.let("v128", values.vector(rest, 0, at)));
    for (let unit = 1; unit < at.units; unit++)
      for (const [k, step] of steps.entries()) f.emit(step.set(values.added(step, (factors[k] as SharedFactor).rest, unit, at)));
    for (const [k, step] of steps.entries()) {
      const [total] = this.#accumulators[k] ?? [];
      if (total) f.emit(total.set(f.multiplyAdd(step.get, values.vector((factors[k] as SharedFactor).factor, 0, at), total.get)));
    }
  }

  #addUnits(at: Position): void {
    const { f, values } = this.columns;
    for (const [k, reduction] of this.#reductions.entries()) {
      for (const [unit, local] of (this.#accumulators[k] ?? []).entries()) {
        const isSum = reduction.combine === "sum" && reduction.value.dtype === "f32";
        const sum = isSum
          ? values.added(local, reduction.value, unit, at)
          : combine(reduction, local.get, values.vector(reduction.value, unit, at));
        f.emit(local.set(sum));
      }
    }
  }

  /**
   * What all lanes of each reduction's vectors come to. They pass through the thread's own memory: where registers are added up after a loop,
   * V8 finds fewer of them in it, and a loop over bytes takes up to 1.7 times as long.
   */
  #totals(): Local[][] {
    const { f } = this.columns;
    const scratch = f.param(2);
    const places = this.#accumulators.map((parts, k) => parts.map((_, unit) => (k * parts.length + unit) * 16));
    for (const [k, parts] of this.#accumulators.entries())
      for (const [unit, part] of parts.entries()) f.emit(memory("v128.store", places[k]?.[unit] ?? 0, scratch.get, part.get));
    return this.#reductions.map((reduction, k) => [
      totalOf(
        f,
        reduction,
        (places[k] ?? []).map((place) => memory("v128.load", place, scratch.get)),
      ),
    ]);
  }
}

/** What all lanes of some vectors come to. */
export function totalOf(f: FunctionBuilder, reduction: Reduction, parts: readonly Code[]): Local {
  const vector = f.let(
    "v128",
    tree(parts, (a, b) => combine(reduction, a, b)),
  );
  const type = reduction.value.dtype === "f32" ? "f32" : "i32";
  const lanes = [0, 1, 2, 3].map((lane) => f.let(type, extractLane(type, lane, vector.get)).get);
  return f.let(
    type,
    tree(lanes, (a, b) => combineScalar(reduction, a, b)),
  );
}
