import { type Code, type FunctionBuilder, f32x4, i32, type Local, memory, op } from "./assembler.js";
import { type BackwardWord, blockQueries, stateBytes } from "./attention-backward.js";
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
  roundedUp,
  rowBytes,
  storeRow,
  sub,
  tileLocals,
  words,
} from "./attention-panels.js";
import { type BodyPrinter, type ScoreOperands, scores } from "./attention-scores.js";
import { firstSeen, type Sight, seenKeys } from "./attention-visibility.js";

/** Bytes of a row of weights in scratch memory. The algorithm is at the head of attention-backward.ts, whose second step this is. */
export const weightRow: number = blockQueries * 4;

export type MainWords = Record<BackwardWord, Local>;

/** What a tile keeps in scratch memory: addresses. */
export interface Scratch {
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
export interface KeyBlock {
  readonly first: Local;
  readonly count: Local;
  readonly whole: Local;
  /** 1 for the first block of a chunk whose part of dQ is not zero yet. */
  readonly isFirst: Local;
}

export interface QueryBlock {
  readonly head: Local;
  readonly chunk: Local;
  readonly query: Local;
  readonly rows: Local;
  readonly sight: Sight;
  readonly bodies: BodyPrinter | null;
}

/** P and dS of a block of queries and one of keys, and what the keys add to dQ. */
export function queryGradients(
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
    const weights = f.let("i32", add(add(scratch.weights.get, words(row.get)), skippedBytes.get));
    const dScores = f.let("i32", add(add(scratch.dScores.get, words(row.get)), skippedBytes.get));
    const operands: ScoreOperands = {
      ...sight,
      ...{ depth: w.dim, firstQuery, count, bodies },
      queries: f.let("i32", add(w.packedQueries.get, mul(mul(panel.get, w.dim.get), i32(rowBytes)))),
      keys: f.let("i32", add(scratch.keys.get, words(mul(skipped.get, w.dim.get)))),
      firstKey: f.let("i32", add(block.first.get, skipped.get)),
    };
    scoreGradients(f, tile, operands, {
      ...{ weights, dScores, valueDim: w.valueDim },
      state: f.let("i32", add(w.states.get, mul(panel.get, i32(stateBytes)))),
      dOut: f.let("i32", add(w.packedDOut.get, mul(mul(panel.get, w.valueDim.get), i32(rowBytes)))),
      values: f.let("i32", add(scratch.values.get, words(mul(skipped.get, w.valueDim.get)))),
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

interface PanelGradients {
  /** Where P and dS of the panel go. */
  readonly weights: Local;
  readonly dScores: Local;
  /** log₂ of the sums of exponentials, and -delta. */
  readonly state: Local;
  /** A panel of dOut, and values packed by fours. */
  readonly dOut: Local;
  readonly values: Local;
  readonly valueDim: Local;
}

/** P and dS of a panel and a block of keys: P = 2^(scores - total), dS = P (dOut Vᵀ - delta), times the slope of the body that scores went through. */
function scoreGradients(f: FunctionBuilder, tile: readonly Local[], operands: ScoreOperands, panel: PanelGradients): void {
  const { weights, dScores, state, dOut, valueDim } = panel;
  const totals = loadRow(state.get).map((code) => f.let("v128", code));
  const deltas = loadRow(state.get, rowBytes).map((code) => f.let("v128", code));
  const at = f.let("i32", weights.get);
  const to = f.let("i32", dScores.get);
  const value = f.let("i32", panel.values.get);
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
    product(f, tile, { a: value.get, aLane: 4, aStep: 16, b: dOut.get, bStep: i32(rowBytes), depth: valueDim.get });
    for (const [index, rest] of tile.entries()) {
      const weight = (): Code => memory("v128.load", place(index), at.get);
      const dScore = op("f32x4.mul", weight(), rest.get);
      const own = op("f32x4.mul", dScore, memory("v128.load", place(index), to.get));
      // Where a key has no weight, the body's slope may be infinite.
      f.emit(
        memory("v128.store", place(index), to.get, operands.bodies ? op("v128.and", own, op("f32x4.gt", weight(), f32x4(0))) : dScore),
      );
    }
    f.emit(to.set(add(to.get, i32(groupKeys * weightRow))));
    f.emit(value.set(add(value.get, mul(valueDim.get, i32(groupKeys * 4)))));
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
export function keyGradients(
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
