import { type DType, dtypeBytes } from "../../tensor/dtype.js";
import { scoreAxes } from "../bodies.js";
import {
  type Code,
  extractLane,
  type FunctionBuilder,
  f32,
  f32x4,
  i32,
  type Local,
  type ModuleBuilder,
  memory,
  memoryFill,
  op,
  shuffle32,
} from "./assembler.js";
import { add, exp2, least, mul, positive, readWords, roundedUp, sub, tableEntry, words } from "./attention-panels.js";
import { BodyPrinter, headPlace, type ScoreBodies } from "./attention-scores.js";
import { kernelParams } from "./loop.js";
import { log } from "./math.js";
import { transpose } from "./pack.js";
import type { ScalarMath } from "./scalar-math.js";
import { loadVector } from "./storage.js";

/**
 * Attention of queries at known positions to a cache of keys and values, which are read as they lie. Keys are taken in chunks that begin at
 * multiples of `chunkKeys`; a chunk's weights relative to its largest score, their sum and the values that they weigh are a partial result,
 * and partial results are merged in the order of the keys. A row's bits depend on its position alone, however rows and chunks are shared
 * out: "split", a tile a chunk, merged in another step, where rows are few; "whole", a tile a block of rows, where they are many.
 */
export const cachedAttentionWords = [
  "queries",
  "keys",
  "values",
  "positions",
  "out",
  "logsumexp",
  /** Partial results, [batch · keyHeads, rows, chunks]. */
  "partials",
  /** Tables of the byte offsets of each head's rows, and the bytes between rows. */
  "queryOffsets",
  "keyOffsets",
  "valueOffsets",
  "outOffsets",
  "logsumexpOffsets",
  "queryRow",
  "keyRow",
  "valueRow",
  "outRow",
  "logsumexpRow",
  "queryCount",
  "keyCount",
  "dim",
  "valueDim",
  /** The bits of scale · log₂ e, or of scale where bodies come in between. */
  "factor",
  "keyHeads",
  /** Query heads to a key head. */
  "group",
  /** How many keys a query sees, up to its own. */
  "window",
  "chunkKeys",
  "chunks",
  "rowBlocks",
] as const;

export type CachedAttentionWord = (typeof cachedAttentionWords)[number];

/** Rows of a tile that passes over all chunks. */
export const blockRows = 16;

/** Below all scores, yet finite: a key that is not seen, whose score is -∞, then weighs 0. */
const lowestScore = -1e30;

/** Largest score and sum of weights, four times each, in front of the weighed values. */
const headBytes = 32;

/** Bytes of a partial result. */
export function partialBytes(valueDim: number): number {
  return headBytes + valueDim * 4;
}

/** Scratch memory of a thread: weights and a partial result for each of two rows, and the results of a block's rows. */
export function cachedScratchBytes(valueDim: number, chunkKeys: number): number {
  return 2 * chunkKeys * 4 + (2 + blockRows) * partialBytes(valueDim);
}

type Words = Record<CachedAttentionWord, Local>;

/** What a tile works on: one key head of one text, and its rows, `group · queryCount` of them. */
interface Tile {
  readonly f: FunctionBuilder;
  readonly w: Words;
  readonly types: { readonly keys: DType; readonly values: DType };
  readonly bodies: { readonly scalarMath: ScalarMath; readonly of: ScoreBodies } | null;
  readonly head: Local;
  readonly position: Local;
  readonly rowCount: Local;
}

function tileOf(f: FunctionBuilder, types: Tile["types"], bodies: Tile["bodies"], head: Code): Tile {
  const w = readWords(f, cachedAttentionWords, cachedAttentionWords);
  const at = f.let("i32", head);
  const position = f.let("i32", memory("i32.load", 0, add(w.positions.get, words(op("i32.div_u", at.get, w.keyHeads.get)))));
  return { f, w, types, bodies, head: at, position, rowCount: f.let("i32", mul(w.group.get, w.queryCount.get)) };
}

/** The first key that a query sees, and the one after the last. */
function seen({ f, w, position }: Tile, query: Code): { first: Local; end: Local } {
  const own = f.let("i32", add(position.get, query));
  const end = positive(f, least(f, add(own.get, i32(1)), w.keyCount.get).get);
  return { first: positive(f, sub(add(own.get, i32(1)), w.window.get)), end };
}

/** Partial results of one chunk of keys and all rows of a head, for those that see some of it. */
export function printAttendSplit(
  module: ModuleBuilder,
  scalarMath: ScalarMath,
  types: Tile["types"],
  bodies: ScoreBodies | null,
  name: string,
): void {
  const f = module.function([...kernelParams], [], name);
  const chunks = f.let("i32", memory("i32.load", cachedAttentionWords.indexOf("chunks") * 4, f.param(0).get));
  const tile = tileOf(f, types, bodies && { scalarMath, of: bodies }, op("i32.div_u", f.param(1).get, chunks.get));
  const chunk = f.let("i32", op("i32.rem_u", f.param(1).get, chunks.get));
  const row = f.let("i32", i32(0));
  eachPair(f, row, tile.rowCount, (width) => {
    const rows = Array.from({ length: width }, (_, r) => {
      const at = add(mul(add(mul(tile.head.get, tile.rowCount.get), add(row.get, i32(r))), tile.w.chunks.get), chunk.get);
      return f.let("i32", add(tile.w.partials.get, mul(at, bytesOfPartial(tile))));
    });
    attendChunk(tile, chunk, row, rows, () => undefined);
  });
}

/** Merges the partial results of a head's rows, in the order of the keys. */
export function printMergeParts(module: ModuleBuilder, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const tile = tileOf(f, { keys: "f32", values: "f32" }, null, f.param(1).get);
  const { w } = tile;
  const row = f.let("i32", i32(0));
  f.while(row, tile.rowCount.get, i32(1), () => {
    const state = f.let("i32", f.param(2).get);
    clear(tile, state);
    const { first, end } = seen(tile, op("i32.rem_u", row.get, w.queryCount.get));
    const chunk = f.let("i32", op("i32.div_u", first.get, w.chunkKeys.get));
    const chunkEnd = f.let("i32", op("i32.div_u", sub(add(end.get, w.chunkKeys.get), i32(1)), w.chunkKeys.get));
    const index = add(mul(add(mul(tile.head.get, tile.rowCount.get), row.get), w.chunks.get), chunk.get);
    const part = f.let("i32", add(w.partials.get, mul(index, bytesOfPartial(tile))));
    f.while(chunk, chunkEnd.get, i32(1), () => {
      merge(tile, state, part);
      f.emit(part.set(add(part.get, bytesOfPartial(tile))));
    });
    finish(tile, state, row);
  });
}

/** A block of rows of a head, past all chunks that they see. */
export function printAttendWhole(
  module: ModuleBuilder,
  scalarMath: ScalarMath,
  types: Tile["types"],
  bodies: ScoreBodies | null,
  name: string,
): void {
  const f = module.function([...kernelParams], [], name);
  const rowBlocks = f.let("i32", memory("i32.load", cachedAttentionWords.indexOf("rowBlocks") * 4, f.param(0).get));
  const tile = tileOf(f, types, bodies && { scalarMath, of: bodies }, op("i32.div_u", f.param(1).get, rowBlocks.get));
  const { w } = tile;
  const firstRow = f.let("i32", mul(op("i32.rem_u", f.param(1).get, rowBlocks.get), i32(blockRows)));
  const endRow = least(f, add(firstRow.get, i32(blockRows)), tile.rowCount.get);
  const partials = f.let("i32", add(f.param(2).get, words(mul(w.chunkKeys.get, i32(2)))));
  const states = f.let("i32", add(partials.get, mul(bytesOfPartial(tile), i32(2))));
  const stateOf = (row: Code): Local => f.let("i32", add(states.get, mul(sub(row, firstRow.get), bytesOfPartial(tile))));
  const each = f.let("i32", firstRow.get);
  f.while(each, endRow.get, i32(1), () => clear(tile, stateOf(each.get)));

  // Rows of several query heads begin again with the first query.
  const lastRow = f.let("i32", sub(endRow.get, i32(1)));
  const isOneHead = f.let(
    "i32",
    op("i32.eq", op("i32.div_u", firstRow.get, w.queryCount.get), op("i32.div_u", lastRow.get, w.queryCount.get)),
  );
  const { first } = seen(tile, [op("i32.rem_u", firstRow.get, w.queryCount.get), i32(0), isOneHead.get, op("select")]);
  const { end } = seen(tile, [op("i32.rem_u", lastRow.get, w.queryCount.get), sub(w.queryCount.get, i32(1)), isOneHead.get, op("select")]);
  const chunk = f.let("i32", op("i32.div_u", first.get, w.chunkKeys.get));
  const chunkEnd = f.let("i32", op("i32.div_u", sub(add(end.get, w.chunkKeys.get), i32(1)), w.chunkKeys.get));
  const row = f.local("i32");
  f.while(chunk, chunkEnd.get, i32(1), () => {
    f.emit(row.set(firstRow.get));
    eachPair(f, row, endRow, (width) => {
      const rows = Array.from({ length: width }, (_, r) => f.let("i32", add(partials.get, mul(bytesOfPartial(tile), i32(r)))));
      attendChunk(tile, chunk, row, rows, () => {
        for (const [r, part] of rows.entries()) merge(tile, stateOf(add(row.get, i32(r))), part);
      });
    });
  });
  f.emit(row.set(firstRow.get));
  f.while(row, endRow.get, i32(1), () => finish(tile, stateOf(row.get), row));
}

/** Rows by twos, which share what is read of keys and values. */
function eachPair(f: FunctionBuilder, row: Local, end: Local, rows: (width: 2 | 1) => void): void {
  const pairs = f.let("i32", add(row.get, op("i32.and", sub(end.get, row.get), i32(-2))));
  f.while(row, pairs.get, i32(2), () => rows(2));
  f.while(row, end.get, i32(1), () => rows(1));
}

function bytesOfPartial({ w }: Tile): Code {
  return add(words(w.valueDim.get), i32(headBytes));
}

/** Computes the partial results of some rows, from `row` on, into `parts`; `use` follows where any of them sees a key of the chunk. */
function attendChunk(tile: Tile, chunk: Local, row: Local, parts: readonly Local[], use: () => void): void {
  const { f, w } = tile;
  const firstKey = f.let("i32", mul(chunk.get, w.chunkKeys.get));
  const ranges = parts.map((part, r) => {
    const own = f.let("i32", add(row.get, i32(r)));
    const query = f.let("i32", op("i32.rem_u", own.get, w.queryCount.get));
    const { first, end } = seen(tile, query.get);
    const queryHead = f.let("i32", add(mul(tile.head.get, w.group.get), op("i32.div_u", own.get, w.queryCount.get)));
    const address = add(add(w.queries.get, tableEntry(w.queryOffsets, queryHead.get)), mul(query.get, w.queryRow.get));
    return {
      part,
      bodies: bodiesOf(tile, queryHead, query),
      query: f.let("i32", address),
      weights: f.let("i32", add(f.param(2).get, words(mul(w.chunkKeys.get, i32(r))))),
      start: least(f, positive(f, sub(first.get, firstKey.get)).get, w.chunkKeys.get),
      end: least(f, positive(f, sub(end.get, firstKey.get)).get, w.chunkKeys.get),
    };
  });
  const [one, other] = ranges as [Row, Row?];
  const least0 = other ? least(f, one.start.get, other.start.get) : one.start;
  const start = f.let("i32", op("i32.and", least0.get, i32(-4)));
  const end = other ? f.let("i32", [one.end.get, other.end.get, op("i32.gt_s", one.end.get, other.end.get), op("select")]) : one.end;
  f.if(op("i32.lt_s", start.get, end.get), () => {
    scores(tile, firstKey, start, end, ranges);
    for (const range of ranges) weigh(tile, range, start, end);
    weighValues(tile, firstKey, start, end, ranges);
    use();
  });
}

/** What becomes of the scores of a query of a head, which counts through the batch, with lanes along the keys. */
function bodiesOf({ f, w, bodies }: Tile, queryHead: Local, query: Local): BodyPrinter | null {
  if (!bodies) return null;
  const heads = f.let("i32", mul(w.keyHeads.get, w.group.get));
  const { outer } = headPlace(f, queryHead, heads);
  const place = { outer: [...outer, query], vectorAxis: scoreAxes.key };
  return new BodyPrinter(f, bodies.scalarMath, bodies.of, place, cachedAttentionWords.length);
}

/** One row within a chunk: keys from `start` to before `end` are seen. */
interface Row {
  readonly part: Local;
  readonly bodies: BodyPrinter | null;
  readonly query: Local;
  readonly weights: Local;
  readonly start: Local;
  readonly end: Local;
}

/** weights[r][key] = keys[key] · queries[r] · factor, and what the bodies make of it, four keys at a time. */
function scores({ f, w, types, head }: Tile, firstKey: Local, start: Local, end: Local, rows: readonly Row[]): void {
  const bytes = dtypeBytes[types.keys];
  const base = add(add(w.keys.get, tableEntry(w.keyOffsets, head.get)), mul(add(firstKey.get, start.get), w.keyRow.get));
  const from = f.let("i32", base);
  const key = f.let("i32", start.get);
  const factor = f.let("v128", op("f32x4.splat", op("f32.reinterpret_i32", w.factor.get)));
  const changed = (bodies: BodyPrinter, plain: Code): Code => {
    const place = f.let("i32", add(firstKey.get, key.get));
    const [value] = bodies.apply([f.let("v128", plain)], place, place)[0] ?? [];
    return (value as Local).get; // of the one vector
  };
  const keys = (count: 4 | 1): void => {
    // Key by key, as memory lies: read side by side, keys come at a third of the speed or less.
    const sums: Local[][] = rows.map(() => []);
    for (let i = 0; i < count; i++) {
      const source = f.let("i32", from.get);
      f.emit(from.set(add(from.get, w.keyRow.get)));
      const own = rows.map(() => [f.let("v128", f32x4(0)), f.let("v128", f32x4(0))] as const);
      const queries = rows.map(({ query }) => f.let("i32", query.get));
      const at = queries[0] as Local; // there is one row at least
      inFours(f, at, w.dim, (vectors) => {
        for (let vector = 0; vector < vectors; vector++) {
          const shared = f.let("v128", loadVector(f, types.keys, source.get, vector * 4 * bytes));
          for (const [r, query] of queries.entries()) {
            const sum = (own[r] as (typeof own)[number])[vector % 2] as Local; // two a row
            f.emit(sum.set(f.multiplyAdd(memory("v128.load", vector * 16, query.get), shared.get, sum.get)));
          }
        }
        f.emit(source.set(add(source.get, i32(vectors * 4 * bytes))));
        for (const query of queries) if (query !== at) f.emit(query.set(add(query.get, i32(vectors * 16))));
      });
      for (const [r, [even, odd]] of own.entries()) sums[r]?.push(f.let("v128", op("f32x4.add", even.get, odd.get)));
    }
    for (const [r, { weights, bodies }] of rows.entries()) {
      const to = add(weights.get, words(key.get));
      const plain = op("f32x4.mul", acrossLanes(f, sums[r] ?? []), factor.get);
      const total = bodies ? changed(bodies, plain) : plain;
      f.emit(count === 4 ? memory("v128.store", 0, to, total) : memory("f32.store", 0, to, extractLane("f32", 0, total)));
    }
  };
  f.while(key, f.let("i32", add(start.get, op("i32.and", sub(end.get, start.get), i32(-4)))).get, i32(4), () => keys(4));
  f.while(key, end.get, i32(1), () => keys(1));
}

/** Runs over `count` numbers from `at` on, which `step` leaves where it is: four vectors at a time, then one. */
function inFours(f: FunctionBuilder, at: Local, count: Local, step: (vectors: number) => void): void {
  const start = f.let("i32", at.get);
  f.while(at, f.let("i32", add(start.get, words(op("i32.and", count.get, i32(-16))))).get, i32(64), () => step(4));
  f.while(at, f.let("i32", add(start.get, words(count.get))).get, i32(16), () => step(1));
}

/** The sum of each vector's lanes, of four as the lanes of one, in the same order as of a single one. */
function acrossLanes(f: FunctionBuilder, sums: readonly Local[]): Code {
  const plus = (a: Code, b: Code): Code => op("f32x4.add", a, b);
  const [x, y, z, w] = sums;
  if (!x) return f32x4(0);
  if (y && z && w) {
    const [p, q, r, s] = transpose(f, [x, y, z, w]);
    return plus(plus(p.get, q.get), plus(r.get, s.get));
  }
  const pairs = f.let("v128", plus(x.get, shuffle32(x.get, x.get, [1, 0, 3, 2])));
  return plus(pairs.get, shuffle32(pairs.get, pairs.get, [2, 3, 0, 1]));
}

/** Scores → weights 2^(score − largest); the largest and the sum go to the front of the partial result. Keys not seen weigh 0. */
function weigh({ f }: Tile, row: Row, start: Local, end: Local): void {
  const address = (key: Code): Code => add(row.weights.get, words(key));
  const hide = (from: Local, to: Code): void => {
    const key = f.let("i32", from.get);
    f.while(key, to, i32(1), () => f.emit(memory("f32.store", 0, address(key.get), f32(Number.NEGATIVE_INFINITY))));
  };
  const stop = f.let("i32", roundedUp(end.get, 4));
  hide(start, least(f, row.start.get, stop.get).get);
  hide(least(f, row.end.get, stop.get), stop.get);
  const at = f.let("i32", address(start.get));
  const last = f.let("i32", address(stop.get));
  const most = f.let("v128", f32x4(lowestScore));
  // What f32x4.max does about NaN takes many instructions; a NaN shows in its weight.
  f.while(at, last.get, i32(16), () => f.emit(most.set(op("f32x4.pmax", most.get, memory("v128.load", 0, at.get)))));
  const halves = f.let("v128", op("f32x4.pmax", most.get, shuffle32(most.get, most.get, [2, 3, 0, 1])));
  const largest = f.let("v128", op("f32x4.pmax", halves.get, shuffle32(halves.get, halves.get, [1, 0, 3, 2])));
  const sum = f.let("v128", f32x4(0));
  f.emit(at.set(address(start.get)));
  f.while(at, last.get, i32(16), () => {
    const weight = f.let("v128", exp2(f, op("f32x4.sub", memory("v128.load", 0, at.get), largest.get)));
    f.emit(sum.set(op("f32x4.add", sum.get, weight.get)));
    f.emit(memory("v128.store", 0, at.get, weight.get));
  });
  f.emit(memory("v128.store", 0, row.part.get, largest.get));
  f.emit(memory("v128.store", 16, row.part.get, acrossLanes(f, [sum])));
}

/** Σ weight · value into the partial results, four values at a time, in the order of the keys. */
function weighValues({ f, w, types, head }: Tile, firstKey: Local, start: Local, end: Local, rows: readonly Row[]): void {
  const bytes = dtypeBytes[types.values];
  for (const { part } of rows) f.emit(memoryFill(add(part.get, i32(headBytes)), i32(0), words(w.valueDim.get)));
  const base = add(add(w.values.get, tableEntry(w.valueOffsets, head.get)), mul(add(firstKey.get, start.get), w.valueRow.get));
  const from = f.let("i32", base);
  const key = f.let("i32", start.get);
  const keys = (count: 4 | 1): void => {
    const factors = rows.map(({ weights }) => {
      const at = f.let("i32", add(weights.get, words(key.get)));
      return Array.from({ length: count }, (_, i) => f.let("v128", memory("v128.load32_splat", i * 4, at.get)));
    });
    const sources = Array.from({ length: count }, () => {
      const source = f.let("i32", from.get);
      f.emit(from.set(add(from.get, w.valueRow.get)));
      return source;
    });
    const targets = rows.map(({ part }) => f.let("i32", add(part.get, i32(headBytes))));
    const to = targets[0] as Local; // there is one row at least
    const last = f.let("i32", add(to.get, words(w.valueDim.get)));
    f.while(to, last.get, i32(16), () => {
      const sums = targets.map((target) => f.let("v128", memory("v128.load", 0, target.get)));
      for (const [i, source] of sources.entries()) {
        const shared = f.let("v128", loadVector(f, types.values, source.get, 0));
        for (const [r, sum] of sums.entries()) {
          const factor = factors[r]?.[i] as Local; // one a row and key
          f.emit(sum.set(f.multiplyAdd(factor.get, shared.get, sum.get)));
        }
        f.emit(source.set(add(source.get, i32(4 * bytes))));
      }
      for (const [r, target] of targets.entries()) {
        f.emit(memory("v128.store", 0, target.get, (sums[r] as Local).get));
        if (target !== to) f.emit(target.set(add(target.get, i32(16))));
      }
    });
  };
  f.while(key, f.let("i32", add(start.get, op("i32.and", sub(end.get, start.get), i32(-4)))).get, i32(4), () => keys(4));
  f.while(key, end.get, i32(1), () => keys(1));
}

/** A result of no keys. */
function clear(tile: Tile, state: Local): void {
  const { f } = tile;
  f.emit(memory("v128.store", 0, state.get, f32x4(lowestScore)));
  f.emit(memoryFill(add(state.get, i32(16)), i32(0), sub(bytesOfPartial(tile), i32(16))));
}

/** Adds a partial result to that of the keys before. */
function merge({ f, w }: Tile, state: Local, part: Local): void {
  const load = (from: Local, offset = 0): Code => memory("v128.load", offset, from.get);
  const before = f.let("v128", load(state));
  const own = f.let("v128", load(part));
  const largest = f.let("v128", op("f32x4.pmax", before.get, own.get));
  const a = f.let("v128", exp2(f, op("f32x4.sub", before.get, largest.get)));
  const b = f.let("v128", exp2(f, op("f32x4.sub", own.get, largest.get)));
  f.emit(memory("v128.store", 0, state.get, largest.get));
  const to = f.let("i32", add(state.get, i32(16)));
  const from = f.let("i32", add(part.get, i32(16)));
  const end = f.let("i32", add(add(state.get, i32(headBytes)), words(w.valueDim.get)));
  f.while(to, end.get, i32(16), () => {
    f.emit(memory("v128.store", 0, to.get, f.multiplyAdd(load(from), b.get, op("f32x4.mul", load(to), a.get))));
    f.emit(from.set(add(from.get, i32(16))));
  });
}

/** Writes a row's results: the weighed values over the sum of weights, and its logarithm. */
function finish({ f, w, head }: Tile, state: Local, row: Local): void {
  const query = op("i32.rem_u", row.get, w.queryCount.get);
  const queryHead = add(mul(head.get, w.group.get), op("i32.div_u", row.get, w.queryCount.get));
  const to = f.let("i32", add(add(w.out.get, tableEntry(w.outOffsets, queryHead)), mul(query, w.outRow.get)));
  const end = f.let("i32", add(to.get, words(w.valueDim.get)));
  const total = f.let("v128", memory("v128.load", 16, state.get));
  const from = f.let("i32", add(state.get, i32(headBytes)));
  f.while(to, end.get, i32(16), () => {
    f.emit(memory("v128.store", 0, to.get, op("f32x4.div", memory("v128.load", 0, from.get), total.get)));
    f.emit(from.set(add(from.get, i32(16))));
  });
  // Scores are in powers of two.
  const largest = f.let("v128", memory("v128.load", 0, state.get));
  const logsumexp = f.multiplyAdd(largest.get, f32x4(Math.LN2), log(f, total.get));
  const at = add(add(w.logsumexp.get, tableEntry(w.logsumexpOffsets, queryHead)), mul(query, w.logsumexpRow.get));
  f.emit(memory("f32.store", 0, at, extractLane("f32", 0, logsumexp)));
}
