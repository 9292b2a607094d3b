import { type Code, type FunctionBuilder, f32, i32, type Local, type ModuleBuilder, memory, memoryFill, op } from "./assembler.js";
import { backwardWords, blockQueries } from "./attention-backward.js";
import { type KeyBlock, keyGradients, queryGradients, type Scratch, weightRow } from "./attention-block-gradients.js";
import { packElements, packKeys } from "./attention-pack.js";
import {
  add,
  groupKeys,
  least,
  mul,
  panelQueries,
  positive,
  readWords,
  roundedUp,
  rowBytes,
  sub,
  tableEntry,
  words,
} from "./attention-panels.js";
import { BodyPrinter, headPlace, type ScoreBodies } from "./attention-scores.js";
import { firstSeen, isLimited, type Sight, sightOf } from "./attention-visibility.js";
import { kernelParams } from "./loop.js";
import type { ScalarMath } from "./scalar-math.js";

/** Scratch memory of a thread that `printBackward` needs. */
export function backwardScratchBytes(dim: number, valueDim: number, blockKeys: number): number {
  const up = (count: number, step: number): number => Math.ceil(count / step) * step;
  return blockKeys * (4 * (dim + valueDim + up(dim, 4) + up(dim, 8) + up(valueDim, 8)) + 2 * weightRow);
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
      const body = bodies && new BodyPrinter(f, scalarMath, bodies, headPlace(f, head, w.ownHeads), backwardWords.length);
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
