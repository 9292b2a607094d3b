import { type Code, type FunctionBuilder, f32, f32x4, i32, type Local, type ModuleBuilder, memory, memoryFill, op } from "./assembler.js";
import { packElements, packKeys } from "./attention.js";
import { type BackwardWord, backwardWords, blockQueries, stateBytes } from "./attention-backward.js";
import {
  add,
  exp2,
  groupKeys,
  least,
  loadRow,
  mul,
  panelQueries,
  positive,
  product,
  readWords,
  roundedUp,
  rowBytes,
  storeRow,
  sub,
  tableEntry,
  tileLocals,
  words,
} from "./attention-panels.js";
import { BodyPrinter, type ScoreBodies, type ScoreOperands, scores } from "./attention-scores.js";
import { firstSeen, isLimited, type Sight, seenKeys, sightOf } from "./attention-visibility.js";
import { kernelParams } from "./loop.js";
import type { ScalarMath } from "./scalar-math.js";

/** Bytes of a row of weights in scratch memory. The algorithm is at the head of attention-backward.ts, whose second step this is. */
const weightRow = blockQueries * 4;

/** Scratch memory of a thread that `printBackward` needs. */
export function backwardScratchBytes(dim: number, valueDim: number, blockKeys: number): number {
  const up = (count: number, step: number): number => Math.ceil(count / step) * step;
  return blockKeys * (4 * (dim + valueDim + up(dim, 4) + up(dim, 8) + up(valueDim, 8)) + 2 * weightRow);
}

type MainWords = Record<BackwardWord, Local>;

/** What a tile keeps in scratch memory: addresses. */
interface Scratch {
  /** Keys and values packed by fours, keys packed by elements. */
  readonly keys: Local;
  readonly values: Local;
  readonly elements: Local;
  /** Sums of dK and dV, rows of whole eights. */
  readonly dKeys: Local;
  readonly dValues: Local;
  /** P and dS, [blockKeys][blockQueries] each. */
  readonly weights: Local;
  readonly dScores: Local;
}

/** A block of keys: its first, how many there are, and the same in whole fours. */
interface KeyBlock {
  readonly first: Local;
  readonly count: Local;
  readonly whole: Local;
  /** 1 for the first block of a chunk whose part of dQ is not zero yet. */
  readonly isFirst: Local;
}

/** Computes dK and dV of one chunk of the keys of one key head, and its part of dQ. */
export function printBackward(module: ModuleBuilder, scalarMath: ScalarMath, bodies: ScoreBodies | null, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const w = readWords(
    f,
    backwardWords,
    backwardWords.filter((word) => !/^(out|logsum|dQuer|factor)/.test(word)),
  );
  const keyHead = f.let("i32", op("i32.div_u", f.param(1).get, w.chunks.get));
  const chunk = f.let("i32", op("i32.rem_u", f.param(1).get, w.chunks.get));
  const dimUp = f.let("i32", roundedUp(w.dim.get, 8));
  const valueDimUp = f.let("i32", roundedUp(w.valueDim.get, 8));
  let next: Code = f.param(2).get;
  const take = (rowWords: Code): Local => {
    const address = f.let("i32", next);
    next = add(address.get, words(mul(w.blockKeys.get, rowWords)));
    return address;
  };
  const scratch: Scratch = {
    keys: take(w.dim.get),
    values: take(w.valueDim.get),
    elements: take(roundedUp(w.dim.get, 4)),
    dKeys: take(dimUp.get),
    dValues: take(valueDimUp.get),
    weights: take(i32(blockQueries)),
    dScores: take(i32(blockQueries)),
  };
  const chunkFirst = f.let("i32", mul(chunk.get, w.chunkKeys.get));
  const end = least(f, w.keyCount.get, add(chunkFirst.get, w.chunkKeys.get));
  const first = f.let("i32", chunkFirst.get);
  const sight = sightOf(f, w, mul(keyHead.get, w.group.get));
  // Not every query sees the first block, then.
  const limited = f.let("i32", isLimited(sight));
  f.if(limited.get, () => {
    const headBytes = f.let("i32", mul(mul(w.panels.get, roundedUp(w.dim.get, 4)), i32(rowBytes)));
    const firstHead = add(mul(chunk.get, w.heads.get), mul(keyHead.get, w.group.get));
    f.emit(memoryFill(add(w.parts.get, mul(firstHead, headBytes.get)), i32(0), mul(w.group.get, headBytes.get)));
  });
  f.while(first, end.get, w.blockKeys.get, () => {
    const count = least(f, w.blockKeys.get, sub(end.get, first.get));
    const whole = f.let("i32", roundedUp(count.get, groupKeys));
    const isFirst = f.let("i32", op("i32.and", op("i32.eq", first.get, chunkFirst.get), op("i32.eqz", limited.get)));
    const block: KeyBlock = { first, count, whole, isFirst };
    const start = (base: Local, offsets: Local, row: Local): Local =>
      f.let("i32", add(add(base.get, tableEntry(offsets, keyHead.get)), mul(first.get, row.get)));
    const keys = start(w.keys, w.keyOffsets, w.keyRow);
    const values = start(w.values, w.valueOffsets, w.valueRow);
    packKeys(f, keys, w.keyRow, w.dim, count, f.let("i32", scratch.keys.get));
    packKeys(f, values, w.valueRow, w.valueDim, count, f.let("i32", scratch.values.get));
    packElements(f, keys, w.keyRow, w.dim, count, w.blockKeys, scratch.elements);
    f.emit(memoryFill(scratch.dKeys.get, i32(0), sub(scratch.weights.get, scratch.dKeys.get)));

    const { firstSeeing, endSeeing } = seeingQueries(f, sight, block, limited);
    const member = f.local("i32");
    f.for(member, w.group.get, i32(1), () => {
      const head = f.let("i32", add(mul(keyHead.get, w.group.get), member.get));
      const body = bodies && new BodyPrinter(f, scalarMath, bodies, head, w.ownHeads, backwardWords.length);
      const query = f.let("i32", firstSeeing.get);
      f.while(query, endSeeing.get, i32(blockQueries), () => {
        const rows = least(f, i32(blockQueries), sub(endSeeing.get, query.get));
        queryGradients(f, w, scratch, block, { head, chunk, query, rows, sight, bodies: body });
        const dOut = f.let("i32", add(w.dOut.get, tableEntry(w.dOutOffsets, head.get)));
        const queries = f.let("i32", add(w.queries.get, tableEntry(w.queryOffsets, head.get)));
        const span = { query, rows, sight, limited };
        keyGradients(f, block, span, {
          weights: scratch.weights,
          rows: dOut,
          row: w.dOutRow,
          dim: valueDimUp,
          to: scratch.dValues,
        });
        keyGradients(f, block, span, { weights: scratch.dScores, rows: queries, row: w.queryRow, dim: dimUp, to: scratch.dKeys });
      });
    });
    const scale = f.let("f32", op("f32.reinterpret_i32", w.scale.get));
    const dKeys = start(w.dKeys, w.dKeyOffsets, w.dKeyRow);
    const dValues = start(w.dValues, w.dValueOffsets, w.dValueRow);
    storeRows(f, { from: scratch.dKeys, fromRow: dimUp, count, dim: w.dim, to: dKeys, toRow: w.dKeyRow, scale: scale.get });
    storeRows(f, { from: scratch.dValues, fromRow: valueDimUp, count, dim: w.valueDim, to: dValues, toRow: w.dValueRow, scale: f32(1) });
  });
}

interface QueryBlock {
  readonly head: Local;
  readonly chunk: Local;
  readonly query: Local;
  readonly rows: Local;
  readonly sight: Sight;
  readonly bodies: BodyPrinter | null;
}

/** The queries, from a whole panel on, of which some see a key of the block; `limited` where they see from some key on only. */
function seeingQueries(f: FunctionBuilder, sight: Sight, { first, count }: KeyBlock, limited: Local) {
  const firstSeeing = f.let("i32", op("i32.and", positive(f, sub(first.get, sight.lastOffset.get)).get, i32(-panelQueries)));
  const endSeeing = f.let("i32", sight.queryCount.get);
  f.if(
    op("i32.lt_s", first.get, sight.prefix.get),
    () => f.emit(firstSeeing.set(i32(0))),
    () =>
      f.if(limited.get, () => {
        f.emit(endSeeing.set(firstSeeing.get));
        f.loop((again) => {
          f.emit(endSeeing.set(add(endSeeing.get, i32(panelQueries))));
          const isInside = f.let("i32", op("i32.lt_s", endSeeing.get, sight.queryCount.get));
          f.if(isInside.get, () => {
            const sees = op("i32.lt_s", firstSeen(f, endSeeing.get, sight).get, add(first.get, count.get));
            f.emit(isInside.set(sees));
          });
          f.brIf(again, isInside.get);
        });
        f.emit(endSeeing.set(least(f, endSeeing.get, sight.queryCount.get).get));
      }),
  );
  return { firstSeeing, endSeeing };
}

/** P and dS of a block of queries and one of keys, and what the keys add to dQ. Long: one stretch of code, whose locals all its parts share. */
function queryGradients(
  f: FunctionBuilder,
  w: MainWords,
  scratch: Scratch,
  block: KeyBlock,
  { head, chunk, query, rows, sight, bodies }: QueryBlock,
): void {
  const tile = tileLocals(f);
  const row = f.local("i32");
  const dimFours = f.let("i32", roundedUp(w.dim.get, 4));
  f.for(row, rows.get, i32(panelQueries), () => {
    const firstQuery = f.let("i32", add(query.get, row.get));
    const { skipped, count } = seenKeys(f, sight, firstQuery, block.first, block.whole);
    const skippedBytes = f.let("i32", mul(skipped.get, i32(weightRow)));
    const panel = f.let("i32", add(mul(head.get, w.panels.get), op("i32.shr_u", firstQuery.get, i32(3))));
    const queries = f.let("i32", add(w.packedQueries.get, mul(mul(panel.get, w.dim.get), i32(rowBytes))));
    const dOut = f.let("i32", add(w.packedDOut.get, mul(mul(panel.get, w.valueDim.get), i32(rowBytes))));
    const state = f.let("i32", add(w.states.get, mul(panel.get, i32(stateBytes))));
    const weights = f.let("i32", add(add(scratch.weights.get, words(row.get)), skippedBytes.get));
    const dScores = f.let("i32", add(add(scratch.dScores.get, words(row.get)), skippedBytes.get));
    const totals = loadRow(state.get).map((code) => f.let("v128", code));
    const deltas = loadRow(state.get, rowBytes).map((code) => f.let("v128", code));
    const at = f.let("i32", weights.get);
    const to = f.let("i32", dScores.get);
    const value = f.let("i32", add(scratch.values.get, words(mul(skipped.get, w.valueDim.get))));
    const operands: ScoreOperands = {
      ...sight,
      ...{ depth: w.dim, queries, firstQuery, count, bodies },
      keys: f.let("i32", add(scratch.keys.get, words(mul(skipped.get, w.dim.get)))),
      firstKey: f.let("i32", add(block.first.get, skipped.get)),
    };
    const place = (index: number): number => (index >> 1) * weightRow + (index & 1) * 16;
    scores(f, tile, operands, (slopes) => {
      for (const [index, score] of tile.entries()) f.emit(memory("v128.store", place(index), at.get, score.get));
      f.emit(at.set(add(at.get, i32(groupKeys * weightRow))));
      if (!slopes) return;
      // Until dS takes their place.
      for (const [index, slope] of slopes.entries()) f.emit(memory("v128.store", place(index), to.get, slope.get));
      f.emit(to.set(add(to.get, i32(groupKeys * weightRow))));
    });
    f.emit(to.set(dScores.get));
    const end = f.let("i32", at.get);
    f.emit(at.set(weights.get));
    f.while(at, end.get, i32(weightRow), () => {
      storeRow(
        f,
        at,
        loadRow(at.get).map((code, j) => exp2(f, op("f32x4.sub", code, (totals[j] as Local).get))),
      );
    });
    f.emit(at.set(weights.get));
    f.while(at, end.get, i32(groupKeys * weightRow), () => {
      for (const [index, local] of tile.entries()) f.emit(local.set((deltas[index & 1] as Local).get));
      product(f, tile, { a: value.get, aLane: 4, aStep: 16, b: dOut.get, bStep: i32(rowBytes), depth: w.valueDim.get });
      for (const [index, rest] of tile.entries()) {
        const dScore = op("f32x4.mul", memory("v128.load", place(index), at.get), rest.get);
        const own = bodies ? op("f32x4.mul", dScore, memory("v128.load", place(index), to.get)) : dScore;
        f.emit(memory("v128.store", place(index), to.get, own));
      }
      f.emit(to.set(add(to.get, i32(groupKeys * weightRow))));
      f.emit(value.set(add(value.get, mul(w.valueDim.get, i32(groupKeys * 4)))));
    });

    const partPanel = add(mul(chunk.get, mul(w.heads.get, w.panels.get)), panel.get);
    const part = f.let("i32", add(w.parts.get, mul(mul(partPanel, dimFours.get), i32(rowBytes))));
    const partEnd = f.let("i32", add(part.get, mul(dimFours.get, i32(rowBytes))));
    const element = f.let("i32", add(scratch.elements.get, mul(skipped.get, i32(16))));
    f.while(part, partEnd.get, i32(4 * rowBytes), () => {
      f.if(
        block.isFirst.get,
        () => {
          for (const local of tile) f.emit(local.set(f32x4(0)));
        },
        () => {
          for (const [index, local] of tile.entries()) f.emit(local.set(memory("v128.load", index * 16, part.get)));
        },
      );
      product(f, tile, { a: element.get, aLane: 4, aStep: 16, b: dScores.get, bStep: i32(weightRow), depth: count.get });
      for (const [index, local] of tile.entries()) f.emit(memory("v128.store", index * 16, part.get, local.get));
      f.emit(element.set(add(element.get, mul(w.blockKeys.get, i32(16)))));
    });
  });
}

interface KeyOperands {
  /** P or dS. */
  readonly weights: Local;
  /** Rows of dOut or of queries from the head's first on; bytes between them. */
  readonly rows: Local;
  readonly row: Local;
  /** Their elements in whole eights. */
  readonly dim: Local;
  readonly to: Local;
}

/**
 * to[key] += Σ weights[key][query] · rows[query] over the queries of a block that see the key. The last eight elements may lie
 * beyond the row: what they add is never stored.
 */
function keyGradients(
  f: FunctionBuilder,
  block: KeyBlock,
  { query, rows, sight, limited }: Pick<QueryBlock, "query" | "rows" | "sight"> & { readonly limited: Local },
  operands: KeyOperands,
): void {
  const { weights, row, dim, to } = operands;
  const tile = tileLocals(f);
  const key = f.local("i32");
  const rowLength = f.let("i32", words(dim.get));
  /** The end of the queries that see the keys; behind the prefix it only grows from key to key. */
  const endSeeing = f.let("i32", i32(0));
  f.for(key, block.whole.get, i32(groupKeys), () => {
    const firstKey = f.let("i32", add(block.first.get, key.get));
    const seeing = sub(sub(firstKey.get, sight.lastOffset.get), query.get);
    const first = f.let("i32", op("i32.and", positive(f, seeing).get, i32(-panelQueries)));
    const end = f.let("i32", rows.get);
    f.if(
      op("i32.lt_s", firstKey.get, sight.prefix.get),
      () => f.emit(first.set(i32(0))),
      () =>
        f.if(limited.get, () => {
          f.loop((again) => {
            const goesOn = f.let("i32", op("i32.lt_s", endSeeing.get, rows.get));
            f.if(goesOn.get, () => {
              const firstOfPanel = firstSeen(f, add(query.get, endSeeing.get), sight);
              f.emit(goesOn.set(op("i32.le_s", firstOfPanel.get, add(firstKey.get, i32(groupKeys - 1)))));
            });
            f.if(goesOn.get, () => f.emit(endSeeing.set(add(endSeeing.get, i32(panelQueries)))));
            f.brIf(again, goesOn.get);
          });
          f.emit(end.set(least(f, endSeeing.get, rows.get).get));
        }),
    );
    f.if(op("i32.lt_s", first.get, end.get), () => {
      const a = f.let("i32", add(add(weights.get, mul(key.get, i32(weightRow))), words(first.get)));
      const b = f.let("i32", add(operands.rows.get, mul(add(query.get, first.get), row.get)));
      const depth = f.let("i32", sub(end.get, first.get));
      const target = f.let("i32", add(to.get, mul(key.get, rowLength.get)));
      const targetEnd = f.let("i32", add(target.get, rowLength.get));
      f.while(target, targetEnd.get, i32(rowBytes), () => {
        const at = f.let("i32", target.get);
        for (let i = 0; i < groupKeys; i++) {
          for (const [j, code] of loadRow(at.get).entries()) f.emit((tile[i * 2 + j] as Local).set(code));
          f.emit(at.set(add(at.get, rowLength.get)));
        }
        product(f, tile, { a: a.get, aLane: weightRow, aStep: 4, b: b.get, bStep: row.get, depth: depth.get });
        f.emit(at.set(target.get));
        for (let i = 0; i < groupKeys; i++) {
          storeRow(f, at, [(tile[i * 2] as Local).get, (tile[i * 2 + 1] as Local).get]);
          f.emit(at.set(add(at.get, rowLength.get)));
        }
        f.emit(b.set(add(b.get, i32(rowBytes))));
      });
    });
  });
}

interface Rows {
  readonly from: Local;
  /** Elements from row to row. */
  readonly fromRow: Local;
  readonly count: Local;
  readonly dim: Local;
  readonly to: Local;
  readonly toRow: Local;
  readonly scale: Code;
}

/** to[row][d] = from[row][d] · scale. */
function storeRows(f: FunctionBuilder, { from, fromRow, count, dim, to, toRow, scale }: Rows): void {
  const row = f.local("i32");
  const whole = f.let("i32", op("i32.and", dim.get, i32(-4)));
  const source = f.let("i32", from.get);
  const target = f.let("i32", to.get);
  f.for(row, count.get, i32(1), () => {
    const d = f.let("i32", i32(0));
    const at = (base: Local): Code => add(base.get, words(d.get));
    f.while(d, whole.get, i32(4), () => {
      f.emit(memory("v128.store", 0, at(target), op("f32x4.mul", memory("v128.load", 0, at(source)), op("f32x4.splat", scale))));
    });
    f.while(d, dim.get, i32(1), () => {
      f.emit(memory("f32.store", 0, at(target), op("f32.mul", memory("f32.load", 0, at(source)), scale)));
    });
    f.emit(source.set(add(source.get, words(fromRow.get))));
    f.emit(target.set(add(target.get, toRow.get)));
  });
}
