import { type FunctionBuilder, f32x4, i32, type Local, type ModuleBuilder, memory, memoryFill, op } from "./assembler.js";
import {
  add,
  exp2,
  groupKeys,
  least,
  loadRow,
  mul,
  panelQueries,
  product,
  readWords,
  roundedUp,
  rowBytes,
  scalePanel,
  storePanel,
  storeRow,
  sub,
  tableEntry,
  tileLocals,
  words,
} from "./attention-panels.js";
import { BodyPrinter, headPlace, type ScoreBodies, type ScoreOperands, scores } from "./attention-scores.js";
import { endSeen, everything, firstSeen, seenKeys, sightOf } from "./attention-visibility.js";
import { kernelParams } from "./loop.js";
import { log } from "./math.js";
import { packPanel } from "./pack.js";
import type { ScalarMath } from "./scalar-math.js";

/**
 * Attention by blocks (Dao 2023, FlashAttention-2, algorithm 1). One step packs keys and values, block after block; the next takes a block
 * of queries a tile past all keys that they see, keeping the largest score and the sum of weights of each. Scores are in powers of two:
 * the queries are packed times scale · log₂ e. Sizes and strides are arguments, addresses and strides in bytes.
 */
export const attentionWords = [
  "queries",
  "keys",
  "values",
  "out",
  "logsumexp",
  "packedKeys",
  "packedValues",
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
  /** What queries see: the words of attention-visibility.ts. */
  "queryCount",
  "keyCount",
  "lastOffset",
  "firstOffset",
  "prefix",
  "starts",
  "startOffsets",
  /** How many keys stand before each text's own, or 0; a table of the byte offsets of each query head's. */
  "positions",
  "positionOffsets",
  /** Elements of a query or key, and of a value. */
  "dim",
  "valueDim",
  /** The bits of scale · log₂ e, or of scale where bodies come in between. */
  "factor",
  /** Query heads to a key head, and of one element of the batch. */
  "group",
  "ownHeads",
  "blockKeys",
  "keyBlocks",
  "blockQueries",
  "queryBlocks",
] as const;

export type AttentionWord = (typeof attentionWords)[number];

/** Below all scores, yet finite: a key that is not seen, whose score is -∞, then weighs 0 before any other was met. */
const lowestScore = -1e30;

/** Bytes beside each panel: largest score, sum of weights, and what the last block multiplied the earlier ones by. */
const stateBytes = 3 * rowBytes;

/** Scratch memory of a thread that `printAttend` needs. */
export function attendScratchBytes(dim: number, valueDim: number, blockQueries: number, blockKeys: number): number {
  return blockQueries * 4 * (dim + Math.ceil(valueDim / 4) * 4) + (blockQueries / panelQueries) * stateBytes + blockKeys * rowBytes;
}

type AttendWords = Readonly<Record<AttentionWord, Local>>;

/** A block of queries of one head, and what is kept of it in scratch memory: addresses. */
interface QueryTile {
  readonly head: Local;
  readonly firstQuery: Local;
  readonly rows: Local;
  /** Elements of a value in whole fours. */
  readonly outDim: Local;
  /** Panels of queries, panels of out, their states, and the weights of one panel. */
  readonly queries: Local;
  readonly panels: Local;
  readonly states: Local;
  readonly weights: Local;
}

/** Computes one block of queries of one head. */
export function printAttend(module: ModuleBuilder, scalarMath: ScalarMath, bodies: ScoreBodies | null, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const w: AttendWords = readWords(f, attentionWords, attentionWords);
  const head = f.let("i32", op("i32.div_u", f.param(1).get, w.queryBlocks.get));
  f.if(w.positions.get, () => {
    const position = f.let("i32", tableEntry(f.let("i32", add(w.positions.get, tableEntry(w.positionOffsets, head.get))), i32(0)));
    f.emit(w.lastOffset.set(add(w.lastOffset.get, position.get)));
    f.if(op("i32.gt_s", w.firstOffset.get, i32(-everything)), () => f.emit(w.firstOffset.set(add(w.firstOffset.get, position.get))));
  });
  const firstQuery = f.let("i32", mul(op("i32.rem_u", f.param(1).get, w.queryBlocks.get), w.blockQueries.get));
  const rows = least(f, w.blockQueries.get, sub(w.queryCount.get, firstQuery.get));
  const outDim = f.let("i32", roundedUp(w.valueDim.get, 4));
  const queries = f.param(2);
  const panels = f.let("i32", add(queries.get, words(mul(w.blockQueries.get, w.dim.get))));
  const states = f.let("i32", add(panels.get, words(mul(w.blockQueries.get, outDim.get))));
  const weights = f.let("i32", add(states.get, mul(op("i32.shr_u", w.blockQueries.get, i32(3)), i32(stateBytes))));
  const tile: QueryTile = { head, firstQuery, rows, outDim, queries, panels, states, weights };
  packQueries(f, w, tile);
  attendKeys(f, w, tile, bodies && new BodyPrinter(f, scalarMath, bodies, headPlace(f, head, w.ownHeads), attentionWords.length));
  finishQueries(f, w, tile);
}

/** The state of the panel that begins at a row. */
function stateAt(f: FunctionBuilder, { states }: QueryTile, row: Local): Local {
  return f.let("i32", add(states.get, mul(op("i32.shr_u", row.get, i32(3)), i32(stateBytes))));
}

/** Packs the queries, and clears what is summed. */
function packQueries(f: FunctionBuilder, w: AttendWords, { head, firstQuery, rows, queries, panels, states }: QueryTile): void {
  const source = f.let("i32", add(add(w.queries.get, tableEntry(w.queryOffsets, head.get)), mul(firstQuery.get, w.queryRow.get)));
  const packed = f.let("i32", queries.get);
  const depthStride = f.let("i32", i32(4));
  const row = f.local("i32");
  const state = f.let("i32", states.get);
  f.for(row, rows.get, i32(panelQueries), () => {
    const lanes = least(f, sub(rows.get, row.get), i32(panelQueries));
    const from = add(source.get, mul(row.get, w.queryRow.get));
    packPanel(f, panelQueries, { dtype: "f32", from, laneStride: w.queryRow, depthStride, lanes, depth: w.dim }, packed);
    storeRow(f, state, [f32x4(lowestScore), f32x4(lowestScore), f32x4(0), f32x4(0)]);
    f.emit(state.set(add(state.get, i32(stateBytes))));
  });
  const factor = op("f32x4.splat", op("f32.reinterpret_i32", w.factor.get));
  scalePanel(f, queries.get, op("i32.div_u", sub(packed.get, queries.get), i32(rowBytes)), [factor, factor]);
  f.emit(memoryFill(panels.get, i32(0), sub(states.get, panels.get)));
}

/** Takes the queries past the blocks of keys that some of them see. */
function attendKeys(f: FunctionBuilder, w: AttendWords, queries: QueryTile, bodies: BodyPrinter | null): void {
  const { head, firstQuery, rows, outDim } = queries;
  const keyHead = f.let("i32", mul(mul(op("i32.div_u", head.get, w.group.get), w.keyBlocks.get), w.blockKeys.get));
  const keys = f.let("i32", add(w.packedKeys.get, words(mul(keyHead.get, w.dim.get))));
  const values = f.let("i32", add(w.packedValues.get, words(mul(keyHead.get, outDim.get))));
  const sight = sightOf(f, w, head.get);
  const end = endSeen(f, sub(add(firstQuery.get, rows.get), i32(1)), sight);
  const firstOwn = firstSeen(f, firstQuery.get, sight);
  /** The block from which the queries see what is not in the prefix. */
  const firstBlock = f.let("i32", sub(firstOwn.get, op("i32.rem_u", firstOwn.get, w.blockKeys.get)));
  const firstKey = f.let("i32", [i32(0), firstBlock.get, w.prefix.get, op("select")]);
  const tile = tileLocals(f);
  const row = f.local("i32");
  f.while(firstKey, end.get, w.blockKeys.get, () => {
    f.for(row, rows.get, i32(panelQueries), () => {
      const query = f.let("i32", add(firstQuery.get, row.get));
      const { skipped, count } = seenKeys(f, sight, query, firstKey, w.blockKeys);
      f.if(op("i32.gt_s", count.get, i32(0)), () => {
        const own = stateAt(f, queries, row);
        const first = f.let("i32", add(firstKey.get, skipped.get));
        const operands: ScoreOperands = {
          ...sight,
          ...{ depth: w.dim, firstQuery: query, firstKey: first, count, bodies },
          queries: f.let("i32", add(queries.queries.get, words(mul(row.get, w.dim.get)))),
          keys: f.let("i32", add(keys.get, words(mul(first.get, w.dim.get)))),
        };
        weighScores(f, tile, operands, queries.weights, own);
        const out = f.let("i32", add(queries.panels.get, words(mul(row.get, outDim.get))));
        const value = f.let("i32", add(add(values.get, words(mul(firstKey.get, outDim.get))), mul(skipped.get, i32(16))));
        const outEnd = f.let("i32", add(out.get, mul(outDim.get, i32(rowBytes))));
        f.while(out, outEnd.get, i32(4 * rowBytes), () => {
          const factors = loadRow(own.get, 2 * rowBytes).map((code) => f.let("v128", code));
          for (const [index, sum] of tile.entries()) {
            f.emit(sum.set(op("f32x4.mul", memory("v128.load", index * 16, out.get), (factors[index & 1] as Local).get)));
          }
          product(f, tile, { a: value.get, aLane: 4, aStep: 16, b: queries.weights.get, bStep: i32(rowBytes), depth: count.get });
          for (const [index, sum] of tile.entries()) f.emit(memory("v128.store", index * 16, out.get, sum.get));
          f.emit(value.set(add(value.get, mul(w.blockKeys.get, i32(16)))));
        });
      });
    });
    const next = f.let("i32", add(firstKey.get, w.blockKeys.get));
    const isBetween = op("i32.and", op("i32.ge_s", next.get, w.prefix.get), op("i32.lt_s", next.get, firstBlock.get));
    f.if(isBetween, () => f.emit(firstKey.set(sub(firstBlock.get, w.blockKeys.get))));
  });
}

/** The weights of a panel's scores with a block of keys, relative to the largest score so far. */
function weighScores(f: FunctionBuilder, tile: readonly Local[], operands: ScoreOperands, weights: Local, state: Local): void {
  const before = loadRow(state.get).map((code) => f.let("v128", code)) as [Local, Local];
  const largest = before.map((local) => f.let("v128", local.get)) as [Local, Local];
  const at = f.let("i32", weights.get);
  scores(f, tile, operands, () => {
    for (const [index, score] of tile.entries()) {
      const most = largest[index & 1] as Local;
      // What f32x4.max does about NaN takes eight instructions, one after another; a NaN shows in its weight.
      f.emit(most.set(op("f32x4.pmax", most.get, score.get)));
      f.emit(memory("v128.store", index * 16, at.get, score.get));
    }
    f.emit(at.set(add(at.get, i32(groupKeys * rowBytes))));
  });
  weigh(f, { weights, count: operands.count, state, before, largest });
}

/** Divides by the sums of weights, and stores out and logsumexp. */
function finishQueries(f: FunctionBuilder, w: AttendWords, queries: QueryTile): void {
  const { head, firstQuery, rows, outDim, panels } = queries;
  const out = f.let("i32", add(add(w.out.get, tableEntry(w.outOffsets, head.get)), mul(firstQuery.get, w.outRow.get)));
  const logsumexp = f.let("i32", add(add(w.logsumexp.get, tableEntry(w.logsumexpOffsets, head.get)), words(firstQuery.get)));
  const row = f.local("i32");
  f.for(row, rows.get, i32(panelQueries), () => {
    const own = stateAt(f, queries, row);
    const panel = f.let("i32", add(panels.get, words(mul(row.get, outDim.get))));
    const sums = loadRow(own.get, rowBytes).map((code) => f.let("v128", code)) as [Local, Local];
    const inverses = sums.map((sum) => f.let("v128", op("f32x4.div", f32x4(1), sum.get))) as [Local, Local];
    scalePanel(f, panel.get, outDim.get, [inverses[0].get, inverses[1].get]);
    const left = f.let("i32", sub(rows.get, row.get));
    storePanel(f, panel, w.valueDim, left, add(out.get, mul(row.get, w.outRow.get)), w.outRow);
    const largest = loadRow(own.get).map((code) => f.let("v128", code));
    const logs = largest.map((local, j) => f.multiplyAdd(local.get, f32x4(Math.LN2), log(f, (sums[j] as Local).get)));
    storeRow(f, own, logs);
    const lane = f.local("i32");
    const lanes = least(f, left.get, i32(panelQueries));
    const target = f.let("i32", add(logsumexp.get, words(row.get)));
    f.for(lane, lanes.get, i32(1), () => {
      f.emit(memory("f32.store", 0, add(target.get, words(lane.get)), memory("f32.load", 0, add(own.get, words(lane.get)))));
    });
  });
}

interface Weighed {
  /** A block's scores of one panel, and how many keys they are of. */
  readonly weights: Local;
  readonly count: Local;
  readonly state: Local;
  /** The largest scores without the block and with it. */
  readonly before: readonly [Local, Local];
  readonly largest: readonly [Local, Local];
}

/** Turns a block's scores into weights 2^(score - largest so far) and updates the panel's state. */
function weigh(f: FunctionBuilder, { weights, count, state, before, largest }: Weighed): void {
  const end = f.let("i32", add(weights.get, mul(count.get, i32(rowBytes))));
  const at = f.let("i32", weights.get);
  const sums = [f.let("v128", f32x4(0)), f.let("v128", f32x4(0))];
  f.while(at, end.get, i32(rowBytes), () => {
    for (const [j, code] of loadRow(at.get).entries()) {
      const weight = f.let("v128", exp2(f, op("f32x4.sub", code, (largest[j] as Local).get)));
      const sum = sums[j] as Local;
      f.emit(sum.set(op("f32x4.add", sum.get, weight.get)));
      f.emit(memory("v128.store", j * 16, at.get, weight.get));
    }
  });
  const factors = before.map((local, j) => f.let("v128", exp2(f, op("f32x4.sub", local.get, (largest[j] as Local).get))));
  const totals = loadRow(state.get, rowBytes).map((code, j) => f.multiplyAdd(code, (factors[j] as Local).get, (sums[j] as Local).get));
  storeRow(
    f,
    state,
    largest.map((local) => local.get),
  );
  storeRow(f, state, totals, rowBytes);
  storeRow(
    f,
    state,
    factors.map((local) => local.get),
    2 * rowBytes,
  );
}
