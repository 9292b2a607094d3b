import type { DType } from "../../tensor/dtype.js";
import type { Expr } from "../expr.js";
import type { Slot } from "../kernel.js";
import { Ahead, sharedParts } from "./ahead.js";
import { Analysis } from "./analysis.js";
import {
  type Code,
  extractLane,
  type FunctionBuilder,
  f32x4,
  i32,
  i32x4,
  type Local,
  type ModuleBuilder,
  memory,
  op,
  shuffle32,
} from "./assembler.js";
import type { Columns } from "./column-sums.js";
import { describeLoop } from "./describe.js";
import { kernelParams, slotsOf } from "./loop.js";
import type { LoopProgram } from "./lower.js";
import { add } from "./pack.js";
import type { ScalarMath } from "./scalar-math.js";
import { type BytesKind, bytesOfUnit, type SixteenBits } from "./sixteen-bits.js";
import { newScope, type Position, Values } from "./values.js";

/** One column of a product: the expressions of each unit's integers, and of the factor of each group of units, in the program's makers. */
interface Column {
  readonly codes: readonly Expr[];
  readonly factors: readonly Expr[];
}

/**
 * Products of rows in 16 bits (`SixteenBits`) with columns that are small integers times factors: sixteen integers at a time are multiplied and
 * added up as such, and each group of them is converted and multiplied with its factor once.
 *
 * The program's last outer axis are the sixteen lanes of a unit, the one before it are `abreast` columns at a time, its inner axis are blocks. Its
 * reductions are, in this order, those of `columns`: integers, factors, and of each row the sum that is added to the product where `hasSums`. The
 * factors of a single row hold its scales.
 */
export interface IntegerRows {
  readonly program: LoopProgram;
  readonly abreast: number;
  readonly hasSums: boolean;
  readonly rows: SixteenBits;
  /** Slots of the rows' integers, of their scales, and of the sums from which groups start. */
  readonly slots: { readonly integers: Slot; readonly scales: Slot; readonly starts: Slot };
}

/** Equal for equal functions. */
export function describeIntegerRows(spec: IntegerRows, dtypes: (slot: Slot) => DType): string {
  const { program, rows, abreast, hasSums } = spec;
  return ["integers", abreast, hasSums, JSON.stringify(rows), describeLoop(program, dtypes)].join(";");
}

/** Writes the function that computes a tile of such columns; the arguments after its slots are the first and the end of the rows of all tiles. */
export function printIntegerRows(
  module: ModuleBuilder,
  scalarMath: ScalarMath,
  spec: IntegerRows,
  dtypes: (slot: Slot) => DType,
  name: string,
): void {
  const f = module.function([...kernelParams], [], name);
  const { program } = spec;
  const pointers = new Map<Slot, Local>();
  const slots = slotsOf(program);
  for (const [i, slot] of slots.entries()) pointers.set(slot, f.let("i32", memory("i32.load", i * 4, f.param(0).get)));
  const given = (word: number): Code => memory("i32.load", (slots.length + word) * 4, f.param(0).get);
  const outer = program.kernel.outer.map(() => f.local("i32"));
  const [inner, innerStart, innerEnd] = [f.local("i32"), f.local("i32"), f.local("i32")];
  const values = new Values(f, program, new Analysis(), scalarMath, dtypes, pointers, outer);
  const columns: Columns = { f, program, scalarMath, dtypes, pointers, values, outer, inner, innerStart, innerEnd };
  const row = f.let("i32", add(op("i32.mul", f.param(1).get, i32(program.rowsPerTile)), given(0)));
  const end = f.let("i32", add(row.get, i32(program.rowsPerTile)));
  const last = f.let("i32", given(1));
  f.if(op("i32.gt_u", end.get, last.get), () => f.emit(end.set(last.get)));
  f.emit(innerStart.set(i32(0)));
  f.emit(innerEnd.set(i32(program.kernel.inner)));
  const [column, lane] = outer as [Local, Local]; // columns and lanes
  const touched = f.let("i32", i32(0));
  f.while(row, end.get, i32(1), () => {
    f.emit(column.set(row.get));
    f.emit(lane.set(i32(0)));
    new Turn(spec, columns, { touched, last }).print();
  });
  // What is loaded has to be of use.
  f.emit(memory("i32.store", 0, f.param(2).get, touched.get));
}

/** Bytes of a cache line, and how far ahead of the present ones columns are touched, so that they are there when their turn comes. */
const [lineBytes, bytesAhead] = [64, 2304];

/** Takes what is loaded ahead, and the end of all columns. */
interface Touch {
  readonly touched: Local;
  readonly last: Local;
}

/** Some columns abreast. */
class Turn {
  readonly #columns: readonly Column[];
  readonly #sums: readonly number[];
  readonly #totals: readonly Local[];
  readonly #base: Position;

  constructor(
    readonly spec: IntegerRows,
    readonly loop: Columns,
    readonly touch: Touch,
  ) {
    const { program, rows, abreast, hasSums } = spec;
    const { f, inner, outer } = loop;
    const { reductions } = program.kernel;
    let next = 0;
    const take = (count: number): Expr[] => reductions.slice(next, (next += count)).map(({ value }) => value);
    this.#columns = Array.from({ length: abreast }, () => ({ codes: take(rows.units), factors: take(rows.groups.length) }));
    this.#sums = hasSums ? Array.from({ length: abreast * rows.m }, (_, i) => next + i) : [];
    this.#totals = Array.from({ length: abreast * rows.m }, () => f.let("v128", f32x4(0)));
    this.#base = { row: newScope(), rowCode: f.here, step: null, inner, vector: outer[1] as Local, lanes: 4, units: 4 }; // lanes are an axis
  }

  print(): void {
    const { program } = this.spec;
    const { f, inner, innerStart, innerEnd, values, dtypes } = this.loop;
    const { kernel } = program;
    const roots = this.#columns.flatMap(({ factors }) => factors);
    const kept = sharedParts(roots, (expr) => values.isLanewise(expr), kernel.outer.length, dtypes);
    const sums = this.#sums.map((k) => kernel.reductions[k] ?? { combine: "sum" as const, value: roots[0] as Expr }); // k numbers them
    const ahead = kept.length + sums.length > 0 ? new Ahead(this.loop, kept, sums, null) : null;
    ahead?.begin();
    if (!ahead) {
      f.emit(inner.set(innerStart.get));
      this.#blocks(innerEnd);
    } else {
      const code: Code[] = [];
      f.into(code, () => {
        const from = f.let("i32", innerStart.get);
        const end = f.local("i32");
        f.while(from, innerEnd.get, i32(ahead.steps), () => {
          f.emit(end.set(add(from.get, i32(ahead.steps))));
          f.if(op("i32.gt_u", end.get, innerEnd.get), () => f.emit(end.set(innerEnd.get)));
          ahead.print(from, end);
          f.emit(inner.set(from.get));
          values.ahead = ahead.loads();
          this.#blocks(end);
          values.ahead = new Map();
        });
      });
      f.emit(code);
    }
    const more = ahead?.totals() ?? [];
    for (const [i, total] of this.#totals.entries()) {
      const sum = f.let("f32", acrossLanes(f, total.get));
      const added = more[i];
      if (added) f.emit(sum.set(op("f32.add", sum.get, added.get)));
      values.accumulators[i] = [sum];
    }
    const at: Position = { ...this.#base, lanes: 1, units: 1 };
    for (const { slot, index, value } of kernel.stores) values.store(slot, index, op("f32x4.splat", values.scalar(value, at)), 0, at);
  }

  /** The loop over blocks, from where `inner` stands. What does not change in it is written in front. */
  #blocks(end: Local): void {
    const { f, inner } = this.loop;
    const code: Code[] = [];
    f.into(code, () => f.while(inner, end.get, i32(1), () => this.#block({ ...this.#base, step: newScope() })));
    f.emit(code);
  }

  /** Loads a word of each line that the same block of columns to come has. */
  #touchAhead(at: Position): void {
    const { f, values, outer } = this.loop;
    const { touched, last } = this.touch;
    for (const { codes } of this.#columns) {
      const stream = values.stream(codes[0] as Expr, at); // one unit at least
      const turnBytes = stream?.bytesAlong(0) ?? 0;
      // Of fewer bytes a block the loop itself takes as long as they do.
      if (!stream || turnBytes <= 0 || stream.bytesAlong(2) < lineBytes / 2) continue;
      const turns = Math.ceil(bytesAhead / turnBytes);
      const isThere = op("i32.lt_u", add((outer[0] as Local).get, i32(turns)), last.get);
      const ahead = f.let("i32", add(stream.address, [i32(turns * turnBytes), i32(0), isThere, op("select")]));
      for (let from = 0; from < stream.bytesAlong(2); from += lineBytes)
        f.emit(touched.set(op("i32.or", touched.get, memory("i32.load8_u", stream.offset + from, ahead.get))));
    }
  }

  #block(at: Position): void {
    const { rows, slots } = this.spec;
    const { f, inner, pointers, values } = this.loop;
    this.#touchAhead(at);
    const pointer = (slot: Slot, bytes: number): Local =>
      f.let("i32", add(pointers.get(slot)?.get ?? [], op("i32.mul", inner.get, i32(bytes))));
    const startCount = rows.groups.filter(({ offset }) => offset !== 0).length;
    const integers = pointer(slots.integers, rows.units * bytesOfUnit);
    const starts = startCount > 0 ? pointer(slots.starts, startCount * 16) : null;
    const scales = pointer(slots.scales, 4);
    const isSingle = rows.m === 1;
    for (const [c, { codes, factors }] of this.#columns.entries()) {
      const sums: (Local | null)[] = Array.from({ length: rows.m }, (_, r) => (isSingle ? (this.#totals[c + r] ?? null) : null));
      let start = 0;
      for (const [g, group] of rows.groups.entries()) {
        const ints = this.#ints(group.units, codes, integers, at);
        for (const [r, own] of ints.entries()) {
          if (starts && group.offset !== 0)
            f.emit(own.set(op("i32x4.add", own.get, memory("v128.load", (r * rows.blocks * startCount + start) * 16, starts.get))));
          const value = op("f32x4.convert_i32x4_s", own.get);
          const factor = values.vector(factors[g] as Expr, 0, at); // one a group
          const sum = sums[r];
          if (sum) f.emit(sum.set(f.multiplyAdd(value, factor, sum.get)));
          else sums[r] = f.let("v128", op("f32x4.mul", value, factor));
        }
        if (group.offset !== 0) start++;
      }
      for (const [r, sum] of sums.entries()) {
        const total = this.#totals[c * rows.m + r] as Local; // one a column and row
        if (sum && !isSingle)
          f.emit(total.set(f.multiplyAdd(sum.get, memory("v128.load32_splat", r * rows.blocks * 4, scales.get), total.get)));
      }
    }
  }

  /** Sixteen integers as twice eight of 16 bits, in the order of `SixteenBits`. */
  #halves(code: Expr, kind: BytesKind, at: Position): readonly [Code, Code] {
    const { values } = this.loop;
    if (kind === "signed in memory") {
      const halves = values.signedHalves(code, at);
      if (halves) return halves;
      throw new Error("IntegerRows: bytes do not lie side by side.");
    }
    const bytes = values.bytes(code, at);
    if (kind === "unsigned") return [op("v128.and", bytes, evenBytes), op("i16x8.shr_u", bytes, i32(8))];
    return [op("i16x8.shr_s", op("i16x8.shl", bytes, i32(8)), i32(8)), op("i16x8.shr_s", bytes, i32(8))];
  }

  /** For each row the sums of products of a group's integers, of which each lane has a part. */
  #ints(units: readonly number[], codes: readonly Expr[], integers: Local, at: Position): Local[] {
    const { m, blocks, units: count, kinds } = this.spec.rows;
    const { f } = this.loop;
    const sums: Local[] = [];
    for (const unit of units) {
      const halves = this.#halves(codes[unit] as Expr, kinds[unit] ?? "unsigned", at).map((half) => f.let("v128", half)); // one a unit
      for (let r = 0; r < m; r++) {
        for (const [half, { get }] of halves.entries()) {
          const offset = (r * blocks * count + unit) * bytesOfUnit + half * 16;
          const product = op("i32x4.dot_i16x8_s", get, memory("v128.load", offset, integers.get));
          const sum = sums[r];
          if (sum) f.emit(sum.set(op("i32x4.add", sum.get, product)));
          else sums[r] = f.let("v128", product);
        }
      }
    }
    return sums;
  }
}

/** In each lane the lower byte. */
const evenBytes: Code = i32x4(0x00ff00ff);

function acrossLanes(f: FunctionBuilder, vector: Code): Code {
  const whole = f.let("v128", vector);
  const half = f.let("v128", op("f32x4.add", whole.get, shuffle32(whole.get, whole.get, [2, 3, 0, 1])));
  return op("f32.add", extractLane("f32", 0, half.get), extractLane("f32", 1, half.get));
}
