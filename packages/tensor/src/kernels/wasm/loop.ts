import type { DType } from "../../tensor/dtype.js";
import { expressionsBelow } from "../expr.js";
import { type Reduction, rootsOf, type Slot, type Store } from "../kernel.js";
import { Analysis } from "./analysis.js";
import { splat } from "./arithmetic.js";
import { type Code, type FunctionBuilder, i32, i32x4, type Local, type ModuleBuilder, memory, op } from "./assembler.js";
import { ColumnSums, type Columns, type Parts, partsOf, totalOf } from "./column-sums.js";
import { groupsOf, type LoopProgram, reductionGroups } from "./lower.js";
import { choose } from "./math.js";
import { combine, identity } from "./reduction.js";
import type { ScalarMath } from "./scalar-math.js";
import type { Segment } from "./segments.js";
import { newScope, type Position, Values } from "./values.js";

/** Parameters of every kernel function: address of its slots' addresses, number of the tile, address of the thread's own scratch memory. */
export const kernelParams = ["i32", "i32", "i32"] as const;

/** The slots that a program reads or writes, in the order in which its function expects their addresses. */
export function slotsOf(program: LoopProgram): Slot[] {
  const slots = new Set<Slot>(program.kernel.stores.map((store) => store.slot));
  for (const node of expressionsBelow(rootsOf(program.kernel))) if (node.op === "load") slots.add(node.slot);
  return [...slots];
}

/** Writes the function of one loop program: it computes one tile. */
export function printLoop(
  module: ModuleBuilder,
  scalarMath: ScalarMath,
  program: LoopProgram,
  dtypes: (slot: Slot) => DType,
  name: string,
): void {
  new LoopPrinter(module.function([...kernelParams], [], name), scalarMath, program, dtypes, 0).print();
}

/** Rows and columns (ends exclusive) of the loops that a tile covers. */
export interface TileRange {
  readonly firstRow: Code;
  readonly endRow: Code;
  readonly firstColumn: Code;
  readonly endColumn: Code;
}

/** Writes a loop over a tile into a function of which it is a part; the slots' addresses begin at byte `slotsAt` of its arguments. */
export function printTileLoop(
  f: FunctionBuilder,
  scalarMath: ScalarMath,
  program: LoopProgram,
  dtypes: (slot: Slot) => DType,
  slotsAt: number,
  range: TileRange,
): void {
  new LoopPrinter(f, scalarMath, program, dtypes, slotsAt).printTile(range);
}

class LoopPrinter {
  readonly #values: Values;
  readonly #outer: Local[];
  readonly #inner: Local;
  readonly #isTurned: boolean;
  readonly #innerStart: Local;
  readonly #innerEnd: Local;
  readonly #columns: Columns;
  /** How the inner loop is cut, where all rows of a tile take a part of it before the next. */
  readonly #parts: Parts | null;

  constructor(
    readonly f: FunctionBuilder,
    scalarMath: ScalarMath,
    readonly program: LoopProgram,
    dtypes: (slot: Slot) => DType,
    slotsAt: number,
  ) {
    const { kernel } = program;
    const pointers = new Map<Slot, Local>();
    for (const [i, slot] of slotsOf(program).entries())
      pointers.set(slot, f.let("i32", memory("i32.load", slotsAt + i * 4, f.param(0).get)));
    this.#outer = kernel.outer.map(() => f.local("i32"));
    this.#inner = f.local("i32");
    this.#innerStart = f.local("i32");
    this.#innerEnd = f.local("i32");
    this.#isTurned = program.vectorAxis !== kernel.outer.length;
    this.#values = new Values(f, program, new Analysis(), scalarMath, dtypes, pointers, this.#outer);
    this.#columns = {
      f,
      program,
      scalarMath,
      dtypes,
      pointers,
      values: this.#values,
      outer: this.#outer,
      inner: this.#inner,
      innerStart: this.#innerStart,
      innerEnd: this.#innerEnd,
    };
    this.#parts = partsOf(this.#columns);
  }

  print(): void {
    const { f, program } = this;
    const { outer, inner } = program.kernel;
    const { wide, narrow, single } = groupsOf(outer.at(-1) ?? 1, program.units);
    const groups = wide + narrow + single;
    // A turned kernel's rows are groups of columns; `sizes` counts them in place of the last axis.
    const sizes = this.#isTurned ? [...outer.slice(0, -1), groups] : outer;
    const rows = sizes.reduce((all, size) => all * size, 1);
    const row = f.let("i32", op("i32.mul", f.param(1).get, i32(program.rowsPerTile)));
    const given = (word: number): Code => memory("i32.load", (slotsOf(program).length + word) * 4, f.param(0).get);
    if (program.isRanged) f.emit(row.set(op("i32.add", row.get, given(0))));
    const limit = op("i32.add", row.get, i32(program.rowsPerTile));
    const end = f.let("i32", limit);
    const last = f.let("i32", program.isRanged ? given(1) : i32(rows));
    f.if(op("i32.gt_u", end.get, last.get), () => f.emit(end.set(last.get)));
    if (this.#parts) {
      this.#printParts(this.#parts, row, end, sizes);
      return;
    }
    f.while(row, end.get, i32(1), () => {
      this.#unpackRow(row, sizes);
      const { chunk } = program;
      const [chunkIndex] = this.#outer;
      if (chunk !== null && chunkIndex) {
        f.emit(this.#innerStart.set(op("i32.mul", chunkIndex.get, i32(chunk))));
        f.emit(this.#innerEnd.set(op("i32.add", this.#innerStart.get, i32(chunk))));
        f.if(op("i32.gt_u", this.#innerEnd.get, i32(inner)), () => f.emit(this.#innerEnd.set(i32(inner))));
      } else {
        f.emit(this.#innerStart.set(i32(0)));
        f.emit(this.#innerEnd.set(i32(inner)));
      }
      if (!this.#isTurned) this.#printRow();
      else this.#printGroup(wide, narrow, single);
    });
  }

  /** A part of the inner loop for each row, then the next part. */
  #printParts({ steps, row: number, saved, savedBytes }: Parts, row: Local, end: Local, sizes: readonly number[]): void {
    const { f, program } = this;
    const { outer, inner } = program.kernel;
    const { wide, narrow, single } = groupsOf(outer.at(-1) ?? 1, program.units);
    const first = f.let("i32", row.get);
    f.for(this.#innerStart, i32(inner), i32(steps), () => {
      f.emit(this.#innerEnd.set(op("i32.add", this.#innerStart.get, i32(steps))));
      f.if(op("i32.gt_u", this.#innerEnd.get, i32(inner)), () => f.emit(this.#innerEnd.set(i32(inner))));
      f.emit(row.set(first.get));
      f.emit(saved.set(f.param(2).get));
      f.emit(number.set(i32(0)));
      f.while(row, end.get, i32(1), () => {
        this.#unpackRow(row, sizes);
        this.#printGroup(wide, narrow, single);
        f.emit(saved.set(op("i32.add", saved.get, i32(savedBytes))));
        f.emit(number.set(op("i32.add", number.get, i32(1))));
      });
    });
  }

  printTile({ firstRow, endRow, firstColumn, endColumn }: TileRange): void {
    const { f } = this;
    const row = f.let("i32", firstRow);
    const end = f.let("i32", endRow);
    f.emit(this.#innerStart.set(firstColumn));
    f.emit(this.#innerEnd.set(endColumn));
    f.while(row, end.get, i32(1), () => {
      this.#unpackRow(row, this.program.kernel.outer);
      this.#printRow();
    });
  }

  /** Splits a row number into the outer variables. */
  #unpackRow(row: Local, sizes: readonly number[]): void {
    const { f } = this;
    const rest = f.local("i32");
    f.emit(rest.set(row.get));
    for (let axis = sizes.length - 1; axis >= 0; axis--) {
      const variable = this.#outer[axis];
      if (!variable) continue;
      if (axis === 0) f.emit(variable.set(rest.get));
      else {
        f.emit(variable.set(op("i32.rem_u", rest.get, i32(sizes[axis] ?? 1))));
        f.emit(rest.set(op("i32.div_u", rest.get, i32(sizes[axis] ?? 1))));
      }
    }
  }

  /** Lanes along the inner axis: vectors, then single steps; accumulators are added up across lanes at the end. */
  #printRow(): void {
    const { f, program } = this;
    const { kernel } = program;
    const base: Position = { row: newScope(), rowCode: f.here, step: null, inner: this.#inner, vector: this.#inner, lanes: 1, units: 1 };
    for (const group of reductionGroups(kernel)) {
      const reductions = group.map((k) => kernel.reductions[k] as Reduction);
      const units = Math.max(2, program.units);
      const accumulators = reductions.map((reduction) => new Array(units).fill(0).map(() => f.let("v128", identity(reduction))));
      this.#innerLoops(units, base, (at, count, segment) => {
        for (const [k, number] of group.entries()) {
          const reduction = segment.reductions[number] as Reduction;
          for (let unit = 0; unit < count; unit++) {
            const local = accumulators[k]?.[unit];
            if (!local) continue;
            let value = this.#values.vector(reduction.value, unit, at);
            if (at.lanes === 1) value = choose(i32x4(-1, 0, 0, 0), value, identity(reduction));
            f.emit(local.set(combine(reduction, local.get, value)));
          }
        }
      });
      for (const [k, reduction] of reductions.entries())
        this.#values.accumulators[group[k] ?? 0] = [
          totalOf(
            f,
            reduction,
            (accumulators[k] ?? []).map((part) => part.get),
          ),
        ];
    }
    if (kernel.stores.some((store) => store.scope === "element")) {
      this.#innerLoops(program.units, base, (at, count, { stores }) =>
        this.#storeAll(
          stores.filter((store) => store.scope === "element"),
          at,
          count,
        ),
      );
    }
    this.#storeRow(base);
  }

  /** The row's stores, each of one value. */
  #storeRow(base: Position): void {
    const at: Position = { ...base, lanes: 1, units: 1 };
    for (const store of this.program.kernel.stores) {
      if (store.scope === "row")
        this.#values.store(store.slot, store.index, splat(store.value.dtype, this.#values.scalar(store.value, at)), 0, at);
    }
  }

  /** Every value of a unit before its stores: an updated tensor may be written over what another value still reads. */
  #storeAll(stores: readonly Store[], at: Position, units: number): void {
    for (let unit = 0; unit < units; unit++) {
      const values = stores.map((store) => this.f.let("v128", this.#values.vector(store.value, unit, at)));
      for (const [i, store] of stores.entries()) this.#values.store(store.slot, store.index, values[i]?.get ?? [], unit, at);
    }
  }

  /** Runs over the inner axis, segment by segment, with `units` vectors a step, then with one, then with single lanes. */
  #innerLoops(units: number, base: Position, body: (at: Position, units: number, segment: Segment) => void): void {
    const { f, program } = this;
    for (const segment of program.segments) {
      const isWhole = program.segments.length === 1;
      const [start, end] = isWhole ? [this.#innerStart, this.#innerEnd] : this.#within(segment);
      const length = segment.end - segment.start;
      const lengths = program.isTile ? null : program.chunk === null ? [length] : isWhole ? [program.chunk, length % program.chunk] : null;
      f.emit(this.#inner.set(start.get));
      let wider = Number.POSITIVE_INFINITY;
      for (const width of units > 1 ? [4 * units, 4, 1] : [4, 1]) {
        const isUsed = !lengths || lengths.some((size) => (wider === Number.POSITIVE_INFINITY ? size : size % wider) >= width);
        wider = width;
        if (!isUsed) continue;
        const whole = op("i32.and", op("i32.sub", end.get, start.get), i32(-width));
        const stop = f.let("i32", op("i32.add", start.get, whole));
        this.#loop(base, stop, width, (at) =>
          body({ ...at, lanes: width === 1 ? 1 : 4, units: Math.max(1, width / 4) }, Math.max(1, width / 4), segment),
        );
      }
    }
  }

  /** The part of a segment that lies in this row's chunk. */
  #within(segment: Segment): readonly [Local, Local] {
    const { f, program } = this;
    const start = f.let("i32", i32(segment.start));
    const end = f.let("i32", i32(segment.end));
    if (program.chunk !== null || program.isTile) {
      f.if(op("i32.lt_u", start.get, this.#innerStart.get), () => f.emit(start.set(this.#innerStart.get)));
      f.if(op("i32.gt_u", end.get, this.#innerEnd.get), () => f.emit(end.set(this.#innerEnd.get)));
      f.if(op("i32.lt_u", end.get, start.get), () => f.emit(end.set(start.get)));
    }
    return [start, end];
  }

  /** One inner loop. Its code goes to a buffer of its own, so that what does not change in it can be written in front of it. */
  #loop(base: Position, end: Local, width: number, body: (at: Position) => void): void {
    const loopCode: Code[] = [];
    this.f.into(loopCode, () => {
      this.f.while(this.#inner, end.get, i32(width), () => body({ ...base, step: newScope() }));
    });
    this.f.emit(loopCode);
  }

  /** Lanes along the last outer axis: one group of columns, the inner loop one step at a time. */
  #printGroup(wide: number, narrow: number, single: number): void {
    const { f, program } = this;
    const column = this.#outer.at(-1) as Local;
    const group = f.let("i32", column.get);
    const width = 4 * program.units;
    const variants = [
      { count: wide, units: program.units, lanes: 4, first: 0, start: 0 },
      { count: narrow, units: 1, lanes: 4, first: wide, start: wide * width },
      { count: single, units: 1, lanes: 1, first: wide + narrow, start: wide * width + narrow * 4 },
    ] as const;
    const present = variants.filter((variant) => variant.count > 0);
    const print = (i: number): void => {
      const variant = present[i];
      if (!variant) return;
      const body = (): void => {
        const offset = op("i32.mul", op("i32.sub", group.get, i32(variant.first)), i32(variant.units * variant.lanes));
        f.emit(column.set(op("i32.add", offset, i32(variant.start))));
        this.#printColumns(column, variant.units, variant.lanes);
      };
      if (i === present.length - 1) body();
      else f.if(op("i32.lt_u", group.get, i32(variant.first + variant.count)), body, () => print(i + 1));
    };
    print(0);
  }

  #printColumns(column: Local, units: number, lanes: 4 | 1): void {
    const { f, program } = this;
    const { kernel } = program;
    const base: Position = { row: newScope(), rowCode: f.here, step: null, inner: this.#inner, vector: column, lanes, units };
    const loop = (end: Local, body: (at: Position) => void): void => this.#loop(base, end, 1, body);
    const innerLoop = (body: (at: Position) => void): void => {
      f.emit(this.#inner.set(this.#innerStart.get));
      loop(this.#innerEnd, body);
    };
    const finish = (): void => {
      if (program.addsLanes) {
        this.#storeRow(base);
        return;
      }
      const elements = kernel.stores.filter((store) => store.scope === "element");
      if (elements.length > 0) innerLoop((at) => this.#storeAll(elements, at, units));
      this.#storeAll(
        kernel.stores.filter((store) => store.scope === "row"),
        base,
        units,
      );
    };
    const groups = reductionGroups(kernel);
    if (this.#parts) {
      const sums = new ColumnSums(this.#columns, groups[0] ?? [], base, this.#parts);
      sums.print(loop);
      f.if(op("i32.ge_u", this.#innerEnd.get, i32(kernel.inner)), () => {
        sums.finish();
        finish();
      });
      return;
    }
    for (const group of groups) {
      const sums = new ColumnSums(this.#columns, group, base, null);
      sums.print(loop);
      sums.finish();
    }
    finish();
  }
}
