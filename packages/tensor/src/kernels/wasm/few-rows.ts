import { type DType, dtypeBytes } from "../../tensor/dtype.js";
import {
  type Code,
  extractLane,
  type FunctionBuilder,
  f32x4,
  i32,
  type Local,
  type ModuleBuilder,
  memory,
  memoryFill,
  op,
  replaceLane,
  shuffle32,
} from "./assembler.js";
import { kernelParams } from "./loop.js";
import { minimum, readWords, tableEntry } from "./matmul.js";
import { add, mul, sub, transpose } from "./pack.js";
import { loadScalar, loadVector } from "./storage.js";

/**
 * The product of a few rows with a matrix, as in decoding: `b` is read once and in its own order, so that packing it would cost more than
 * the product. Takes the arguments of `printMatmul`; a tile is `tileColumns` columns of all rows.
 */
export function printFewRows(
  module: ModuleBuilder,
  types: { readonly a: DType; readonly b: DType },
  runs: "down" | "across",
  bytesAhead: number,
  name: string,
): void {
  const f = module.function([...kernelParams], [], name);
  const words = readWords(f, [
    "a",
    "b",
    "out",
    "m",
    "n",
    "k",
    "aRow",
    "bRow",
    "bColumn",
    "aColumn",
    "aOffsets",
    "bOffsets",
    "outOffsets",
    "outRow",
    "tiles",
    "tileColumns",
  ]);
  const batch = f.let("i32", op("i32.div_u", f.param(1).get, words.tiles.get));
  const first = f.let("i32", mul(op("i32.rem_u", f.param(1).get, words.tiles.get), words.tileColumns.get));
  const count = minimum(f, words.tileColumns.get, sub(words.n.get, first.get));
  const tile: Tile = {
    f,
    types,
    a: f.let("i32", add(words.a.get, tableEntry(words.aOffsets, batch.get))),
    b: f.let("i32", add(add(words.b.get, tableEntry(words.bOffsets, batch.get)), mul(first.get, words.bColumn.get))),
    out: f.let("i32", add(add(words.out.get, tableEntry(words.outOffsets, batch.get)), op("i32.shl", first.get, i32(2)))),
    count,
    words,
  };
  if (runs === "down") printDown(tile);
  else printAcross(tile, bytesAhead);
}

/**
 * Adds up partial products: `k` of them, each m rows of n columns, one after another at `a`. A tile is `tileColumns` columns of all rows
 * of out.
 */
export function printSumParts(module: ModuleBuilder, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const words = readWords(f, ["a", "out", "m", "n", "k", "outRow", "tileColumns"]);
  const first = f.let("i32", mul(f.param(1).get, words.tileColumns.get));
  const count = minimum(f, words.tileColumns.get, sub(words.n.get, first.get));
  const partBytes = f.let("i32", op("i32.shl", mul(words.m.get, words.n.get), i32(2)));
  const row = f.local("i32");
  f.for(row, words.m.get, i32(1), () => {
    const start = f.let("i32", op("i32.shl", first.get, i32(2)));
    const from = f.let("i32", add(add(words.a.get, start.get), op("i32.shl", mul(row.get, words.n.get), i32(2))));
    const to = f.let("i32", add(add(words.out.get, start.get), mul(row.get, words.outRow.get)));
    const step = (lanes: 4 | 1): void => {
      const load = (address: Code): Code => memory(lanes === 4 ? "v128.load" : "v128.load32_zero", 0, address);
      const sum = f.let("v128", load(from.get));
      const at = f.let("i32", from.get);
      const part = f.let("i32", i32(1));
      f.while(part, words.k.get, i32(1), () => {
        f.emit(at.set(add(at.get, partBytes.get)));
        f.emit(sum.set(op("f32x4.add", sum.get, load(at.get))));
      });
      if (lanes === 4) f.emit(memory("v128.store", 0, to.get, sum.get));
      else f.emit(memory("f32.store", 0, to.get, extractLane("f32", 0, sum.get)));
      f.emit(from.set(add(from.get, i32(4 * lanes))));
    };
    f.while(to, f.let("i32", add(to.get, op("i32.shl", op("i32.and", count.get, i32(-4)), i32(2)))).get, i32(16), () => step(4));
    f.while(to, f.let("i32", add(to.get, op("i32.shl", op("i32.and", count.get, i32(3)), i32(2)))).get, i32(4), () => step(1));
  });
}

interface Tile {
  readonly f: FunctionBuilder;
  readonly types: { readonly a: DType; readonly b: DType };
  readonly a: Local;
  readonly b: Local;
  readonly out: Local;
  /** Columns of the tile. */
  readonly count: Local;
  readonly words: ReturnType<typeof readWords>;
}

/** Rows of b are contiguous: four of them at a time are added to out, which stays in cache. */
function printDown({ f, types, a, b, out, count, words }: Tile): void {
  const row = f.local("i32");
  const outRow = f.local("i32");
  f.emit(outRow.set(out.get));
  f.for(row, words.m.get, i32(1), () => {
    f.emit(memoryFill(outRow.get, i32(0), op("i32.shl", count.get, i32(2))));
    f.emit(outRow.set(add(outRow.get, words.outRow.get)));
  });
  const bytes = dtypeBytes[types.b];
  const whole = f.let("i32", op("i32.shl", op("i32.and", count.get, i32(-4)), i32(2)));
  const depth = f.let("i32", i32(0));
  const block = (height: number): void => {
    const aRow = f.let("i32", add(a.get, mul(depth.get, words.aColumn.get)));
    f.emit(outRow.set(out.get));
    f.for(row, words.m.get, i32(1), () => {
      const at = f.let("i32", aRow.get);
      const factors = Array.from({ length: height }, () => {
        const factor = f.let("v128", op("f32x4.splat", loadScalar(f, types.a, at.get)));
        f.emit(at.set(add(at.get, words.aColumn.get)));
        return factor;
      });
      const from = f.let("i32", b.get);
      const sources = factors.map(() => {
        const source = f.let("i32", from.get);
        f.emit(from.set(add(from.get, words.bRow.get)));
        return source;
      });
      const to = f.let("i32", outRow.get);
      const step = (lanes: 4 | 1): void => {
        const sum = f.let("v128", memory(lanes === 4 ? "v128.load" : "v128.load32_zero", 0, to.get));
        for (const [i, factor] of factors.entries()) {
          const source = sources[i] as Local; // one a factor
          const value = lanes === 4 ? loadVector(f, types.b, source.get, 0) : op("f32x4.splat", loadScalar(f, types.b, source.get));
          f.emit(sum.set(f.multiplyAdd(factor.get, value, sum.get)));
          f.emit(source.set(add(source.get, i32(bytes * lanes))));
        }
        if (lanes === 4) f.emit(memory("v128.store", 0, to.get, sum.get));
        else f.emit(memory("f32.store", 0, to.get, extractLane("f32", 0, sum.get)));
      };
      f.while(to, f.let("i32", add(outRow.get, whole.get)).get, i32(16), () => step(4));
      f.while(to, f.let("i32", add(outRow.get, op("i32.shl", count.get, i32(2)))).get, i32(4), () => step(1));
      f.emit(aRow.set(add(aRow.get, words.aRow.get)));
      f.emit(outRow.set(add(outRow.get, words.outRow.get)));
    });
    f.emit(b.set(add(b.get, mul(words.bRow.get, i32(height)))));
  };
  f.while(depth, f.let("i32", op("i32.and", words.k.get, i32(-4))).get, i32(4), () => block(4));
  f.while(depth, words.k.get, i32(1), () => block(1));
}

/**
 * Columns of b and rows of a are contiguous: inner products with four columns at a time. Columns side by side are no stream of memory that a
 * processor foresees: read only so, long ones come at half the speed. So each step touches the next `bytesAhead` of the following four
 * columns, too, in the order in which they lie.
 */
function printAcross({ f, types, a, b, out, count, words }: Tile, bytesAhead: number): void {
  const column = f.let("i32", i32(0));
  const [aBytes, bBytes] = [dtypeBytes[types.a], dtypeBytes[types.b]];
  const whole = f.let("i32", mul(op("i32.and", words.k.get, i32(-4)), i32(aBytes)));
  const all = f.let("i32", mul(words.k.get, i32(aBytes)));
  const [ahead, touched] = [f.local("i32"), f.let("i32", i32(0))];
  const columns = (width: 4 | 1): void => {
    const touches = width === 4 && bytesAhead > 0;
    const four = mul(words.bColumn.get, i32(4));
    // The last four touch themselves.
    if (touches) f.emit(ahead.set([add(b.get, four), b.get, op("i32.le_u", add(column.get, i32(8)), count.get), op("select")]));
    const aRow = f.let("i32", a.get);
    const to = f.let("i32", add(out.get, op("i32.shl", column.get, i32(2))));
    eachRow(f, words.m, (height) => {
      const from = f.let("i32", b.get);
      const sources = Array.from({ length: width }, () => {
        const source = f.let("i32", from.get);
        f.emit(from.set(add(from.get, words.bColumn.get)));
        return source;
      });
      const rows = Array.from({ length: height }, () => {
        const at = f.let("i32", aRow.get);
        f.emit(aRow.set(add(aRow.get, words.aRow.get)));
        return { at, sums: sources.map(() => f.let("v128", f32x4(0))) };
      });
      const at = (rows[0] as (typeof rows)[number]).at; // there is one row at least
      const start = f.let("i32", at.get);
      const step = (lanes: 4 | 1): void => {
        const read = (type: DType, address: Code): Code =>
          lanes === 4 ? loadVector(f, type, address, 0) : replaceLane("f32", 0, f32x4(0), loadScalar(f, type, address));
        const values = rows.map((row) => f.let("v128", read(types.a, row.at.get)));
        for (const [i, source] of sources.entries()) {
          const shared = f.let("v128", read(types.b, source.get));
          for (const [r, { sums }] of rows.entries()) {
            const sum = sums[i] as Local; // one a source
            f.emit(sum.set(f.multiplyAdd((values[r] as Local).get, shared.get, sum.get)));
          }
          f.emit(source.set(add(source.get, i32(bBytes * lanes))));
        }
        for (const row of rows) if (row.at !== at) f.emit(row.at.set(add(row.at.get, i32(aBytes * lanes))));
        if (!touches || lanes === 1) return;
        f.emit(touched.set(op("i32.or", touched.get, memory("i32.load", 0, ahead.get))));
        f.emit(ahead.set(add(ahead.get, i32(bytesAhead))));
      };
      f.while(at, f.let("i32", add(start.get, whole.get)).get, i32(4 * aBytes), () => step(4));
      f.while(at, f.let("i32", add(start.get, all.get)).get, i32(aBytes), () => step(1));
      for (const { sums } of rows) {
        const total = acrossLanes(f, sums);
        if (width === 4) f.emit(memory("v128.store", 0, to.get, total));
        else f.emit(memory("f32.store", 0, to.get, extractLane("f32", 0, total)));
        f.emit(to.set(add(to.get, words.outRow.get)));
      }
    });
    f.emit(b.set(add(b.get, mul(words.bColumn.get, i32(width)))));
  };
  f.while(column, f.let("i32", op("i32.and", count.get, i32(-4))).get, i32(4), () => columns(4));
  f.while(column, count.get, i32(1), () => columns(1));
  // What is loaded has to be of use.
  if (bytesAhead > 0) f.emit(memory("i32.store", 0, f.param(2).get, touched.get));
}

/** Columns of fewer bytes follow one another closely enough. */
const longColumn = 1024;

/** How much of the next four columns to touch in each step of four lanes, so that all steps of all rows, two at a time, touch no more than that. */
export function bytesAheadOf(m: number, k: number, b: DType): number {
  const bytes = dtypeBytes[b];
  return k * bytes < longColumn ? 0 : Math.floor((4 * bytes) / Math.ceil(m / 2)) * 4;
}

/** Rows by twos, which share what is read of b; each is summed up as it would be alone. */
function eachRow(f: FunctionBuilder, count: Local, rows: (height: 2 | 1) => void): void {
  const row = f.let("i32", i32(0));
  f.while(row, f.let("i32", op("i32.and", count.get, i32(-2))).get, i32(2), () => rows(2));
  f.while(row, count.get, i32(1), () => rows(1));
}

/** The sum of each vector's lanes: of four vectors as the lanes of one, of a single one in every lane. */
function acrossLanes(f: FunctionBuilder, sums: readonly Local[]): Code {
  const plus = (a: Code, b: Code): Code => op("f32x4.add", a, b);
  const [x, y, z, w] = sums;
  if (x && y && z && w) {
    const [p, q, r, s] = transpose(f, [x, y, z, w]);
    return plus(plus(p.get, q.get), plus(r.get, s.get));
  }
  if (!x) return f32x4(0);
  const half = f.let("v128", plus(x.get, shuffle32(x.get, x.get, [2, 3, 0, 1])));
  return plus(half.get, shuffle32(half.get, half.get, [1, 0, 3, 2]));
}
