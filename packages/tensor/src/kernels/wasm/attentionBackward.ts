import { type Code, type FunctionBuilder, f32, f32x4, i32, type Local, type ModuleBuilder, memory, memoryFill, op } from "./assembler.js";
import { packElements, packKeys } from "./attention.js";
import {
  add,
  exp2,
  groupKeys,
  laneSum,
  lastSeen,
  least,
  loadRow,
  mul,
  panelQueries,
  positive,
  product,
  readWords,
  roundedUp,
  rowBytes,
  scalePanel,
  scores,
  storePanel,
  storeRow,
  sub,
  tableEntry,
  tileLocals,
  words,
} from "./attentionPanels.js";
import { kernelParams } from "./loop.js";
import { packPanel } from "./matmul.js";

/**
 * Gradients of attention by blocks (Dao 2023, algorithm 2), weights computed anew from logsumexp. With P the weights and
 * delta = Σ dOut · out of each query: dV = Pᵀ dOut, dP = dOut Vᵀ, dS = P (dP - delta), dQ = scale dS K, dK = scale dSᵀ Q.
 *
 * Three steps. The first packs queries and dOut by panels. The second takes a chunk of the keys of one head a tile past all queries that
 * see them: dK and dV are then whole, dQ is the chunk's part. The third adds the parts. The chunks depend on shapes alone, and so do
 * the results. Sizes and strides are arguments, addresses and strides in bytes.
 */
export const backwardWords = [
  "queries",
  "keys",
  "values",
  "out",
  "logsumexp",
  "dOut",
  "dQueries",
  "dKeys",
  "dValues",
  "packedQueries",
  "packedDOut",
  "states",
  "parts",
  /** Tables of the byte offsets of each head's rows, and the bytes between rows. */
  "queryOffsets",
  "keyOffsets",
  "valueOffsets",
  "outOffsets",
  "logsumexpOffsets",
  "dOutOffsets",
  "dQueryOffsets",
  "dKeyOffsets",
  "dValueOffsets",
  "queryRow",
  "keyRow",
  "valueRow",
  "outRow",
  "dOutRow",
  "dQueryRow",
  "dKeyRow",
  "dValueRow",
  "queryCount",
  "keyCount",
  "dim",
  "valueDim",
  /** keys - queries where attention is causal, else beyond all keys. */
  "offset",
  /** The bits of scale · log₂ e, and of scale. */
  "factor",
  "scale",
  /** Query heads, and how many of them go to a key head. */
  "heads",
  "group",
  "blockKeys",
  "chunkKeys",
  "chunks",
  /** Panels of queries of a head, and blocks of `blockQueries`. */
  "panels",
  "queryBlocks",
] as const;

export type BackwardWord = (typeof backwardWords)[number];

/** Queries that are taken at a time; also the length of a row of weights in scratch memory. */
export const blockQueries = 64;
const weightRow = blockQueries * 4;
/** Beside each panel: log₂ of the sum of exponentials, delta. */
export const stateBytes: number = 2 * rowBytes;

/** Packs one block of queries and of dOut of one head, and computes their states. */
export function printPrepareBackward(module: ModuleBuilder, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const w = readWords(
    f,
    backwardWords,
    backwardWords.filter((word) => /^(quer|out|logsum|dOut|packed|states|dim|valueDim|factor|panels)/.test(word)),
  );
  const head = f.let("i32", op("i32.div_u", f.param(1).get, w.queryBlocks.get));
  const firstQuery = f.let("i32", mul(op("i32.rem_u", f.param(1).get, w.queryBlocks.get), i32(blockQueries)));
  const rows = least(f, i32(blockQueries), sub(w.queryCount.get, firstQuery.get));
  const start = (base: Local, offsets: Local, row: Local): Local =>
    f.let("i32", add(add(base.get, tableEntry(offsets, head.get)), mul(firstQuery.get, row.get)));
  const queries = start(w.queries, w.queryOffsets, w.queryRow);
  const out = start(w.out, w.outOffsets, w.outRow);
  const dOut = start(w.dOut, w.dOutOffsets, w.dOutRow);
  const logsumexp = start(w.logsumexp, w.logsumexpOffsets, f.let("i32", i32(4)));
  const panel = f.let("i32", add(mul(head.get, w.panels.get), op("i32.shr_u", firstQuery.get, i32(3))));
  const toQueries = f.let("i32", add(w.packedQueries.get, mul(mul(panel.get, w.dim.get), i32(rowBytes))));
  const toDOut = f.let("i32", add(w.packedDOut.get, mul(mul(panel.get, w.valueDim.get), i32(rowBytes))));
  const state = f.let("i32", add(w.states.get, mul(panel.get, i32(stateBytes))));
  const depthStride = f.let("i32", i32(4));
  const row = f.local("i32");
  const factor = op("f32x4.splat", op("f32.reinterpret_i32", w.factor.get));
  f.for(row, rows.get, i32(panelQueries), () => {
    const lanes = least(f, sub(rows.get, row.get), i32(panelQueries));
    const pack = (from: Local, laneStride: Local, depth: Local, to: Local): void => {
      const at = add(from.get, mul(row.get, laneStride.get));
      packPanel(f, panelQueries, { dtype: "f32", from: at, laneStride, depthStride, lanes, depth }, to);
    };
    const before = f.let("i32", toQueries.get);
    pack(queries, w.queryRow, w.dim, toQueries);
    scalePanel(f, before.get, w.dim.get, [factor, factor]);
    pack(dOut, w.dOutRow, w.valueDim, toDOut);
    const zero = f32x4(0);
    storeRow(f, state, [zero, zero, zero, zero]);
    const lane = f.local("i32");
    const a = f.let("i32", add(out.get, mul(row.get, w.outRow.get)));
    const b = f.let("i32", add(dOut.get, mul(row.get, w.dOutRow.get)));
    f.for(lane, lanes.get, i32(1), () => {
      const at = f.let("i32", add(state.get, words(lane.get)));
      const total = memory("f32.load", 0, add(logsumexp.get, words(add(row.get, lane.get))));
      f.emit(memory("f32.store", 0, at.get, op("f32.mul", total, f32(Math.LOG2E))));
      f.emit(memory("f32.store", rowBytes, at.get, dot(module, f, a, b, w.valueDim).get));
      f.emit(a.set(add(a.get, w.outRow.get)));
      f.emit(b.set(add(b.get, w.dOutRow.get)));
    });
    f.emit(state.set(add(state.get, i32(stateBytes))));
  });
}

/** Σ a[d] · b[d]. */
function dot(module: ModuleBuilder, f: FunctionBuilder, a: Local, b: Local, dim: Local): Local {
  const d = f.let("i32", i32(0));
  const whole = f.let("i32", op("i32.and", dim.get, i32(-4)));
  const sums = f.let("v128", f32x4(0));
  const at = (base: Local): Code => add(base.get, words(d.get));
  f.while(d, whole.get, i32(4), () => {
    f.emit(sums.set(module.multiplyAdd(memory("v128.load", 0, at(a)), memory("v128.load", 0, at(b)), sums.get)));
  });
  const sum = f.let("f32", laneSum(sums));
  f.while(d, dim.get, i32(1), () => {
    f.emit(sum.set(op("f32.add", sum.get, op("f32.mul", memory("f32.load", 0, at(a)), memory("f32.load", 0, at(b))))));
  });
  return sum;
}

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
  /** 1 for the first block of the chunk. */
  readonly isFirst: Local;
}

/** Computes dK and dV of one chunk of the keys of one key head, and its part of dQ. */
export function printBackward(module: ModuleBuilder, name: string): void {
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
  f.while(first, end.get, w.blockKeys.get, () => {
    const count = least(f, w.blockKeys.get, sub(end.get, first.get));
    const whole = f.let("i32", roundedUp(count.get, groupKeys));
    const block: KeyBlock = { first, count, whole, isFirst: f.let("i32", op("i32.eq", first.get, chunkFirst.get)) };
    const start = (base: Local, offsets: Local, row: Local): Local =>
      f.let("i32", add(add(base.get, tableEntry(offsets, keyHead.get)), mul(first.get, row.get)));
    const keys = start(w.keys, w.keyOffsets, w.keyRow);
    const values = start(w.values, w.valueOffsets, w.valueRow);
    packKeys(f, keys, w.keyRow, w.dim, count, f.let("i32", scratch.keys.get));
    packKeys(f, values, w.valueRow, w.valueDim, count, f.let("i32", scratch.values.get));
    packElements(f, keys, w.keyRow, w.dim, count, w.blockKeys, scratch.elements);
    f.emit(memoryFill(scratch.dKeys.get, i32(0), sub(scratch.weights.get, scratch.dKeys.get)));

    const firstSeeing = f.let("i32", op("i32.and", positive(f, sub(first.get, w.offset.get)).get, i32(-panelQueries)));
    const member = f.local("i32");
    f.for(member, w.group.get, i32(1), () => {
      const head = f.let("i32", add(mul(keyHead.get, w.group.get), member.get));
      const query = f.let("i32", firstSeeing.get);
      f.while(query, w.queryCount.get, i32(blockQueries), () => {
        const rows = least(f, i32(blockQueries), sub(w.queryCount.get, query.get));
        queryGradients(module, f, w, scratch, block, { head, chunk, query, rows });
        const dOut = f.let("i32", add(w.dOut.get, tableEntry(w.dOutOffsets, head.get)));
        const queries = f.let("i32", add(w.queries.get, tableEntry(w.queryOffsets, head.get)));
        const span = { query, rows, offset: w.offset };
        keyGradients(module, f, block, span, {
          weights: scratch.weights,
          rows: dOut,
          row: w.dOutRow,
          dim: valueDimUp,
          to: scratch.dValues,
        });
        keyGradients(module, f, block, span, { weights: scratch.dScores, rows: queries, row: w.queryRow, dim: dimUp, to: scratch.dKeys });
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
}

/** P and dS of a block of queries and one of keys, and what the keys add to dQ. */
function queryGradients(
  module: ModuleBuilder,
  f: FunctionBuilder,
  w: MainWords,
  scratch: Scratch,
  block: KeyBlock,
  { head, chunk, query, rows }: QueryBlock,
): void {
  const tile = tileLocals(f);
  const row = f.local("i32");
  const dimFours = f.let("i32", roundedUp(w.dim.get, 4));
  f.for(row, rows.get, i32(panelQueries), () => {
    const firstQuery = f.let("i32", add(query.get, row.get));
    const seen = sub(add(lastSeen(f, add(firstQuery.get, i32(panelQueries - 1)), w).get, i32(1)), block.first.get);
    const count = least(f, roundedUp(seen, groupKeys), block.whole.get);
    const panel = f.let("i32", add(mul(head.get, w.panels.get), op("i32.shr_u", firstQuery.get, i32(3))));
    const queries = f.let("i32", add(w.packedQueries.get, mul(mul(panel.get, w.dim.get), i32(rowBytes))));
    const dOut = f.let("i32", add(w.packedDOut.get, mul(mul(panel.get, w.valueDim.get), i32(rowBytes))));
    const state = f.let("i32", add(w.states.get, mul(panel.get, i32(stateBytes))));
    const weights = f.let("i32", add(scratch.weights.get, words(row.get)));
    const dScores = f.let("i32", add(scratch.dScores.get, words(row.get)));
    const at = f.local("i32");
    const end = f.let("i32", add(weights.get, mul(count.get, i32(weightRow))));

    scores(module, f, tile, {
      ...{ keyCount: w.keyCount, offset: w.offset, depth: w.dim, toRow: weightRow, firstKey: block.first },
      ...{ keys: scratch.keys, queries, firstQuery, count, to: weights },
    });
    const totals = loadRow(state.get).map((code) => f.let("v128", code));
    f.emit(at.set(weights.get));
    f.while(at, end.get, i32(weightRow), () => {
      storeRow(
        f,
        at,
        loadRow(at.get).map((code, j) => exp2(module, f, op("f32x4.sub", code, (totals[j] as Local).get))),
      );
    });

    const to = f.let("i32", dScores.get);
    const value = f.let("i32", scratch.values.get);
    f.emit(at.set(weights.get));
    f.while(at, end.get, i32(groupKeys * weightRow), () => {
      for (const local of tile) f.emit(local.set(f32x4(0)));
      product(module, f, tile, { a: value.get, aLane: 4, aStep: 16, b: dOut.get, bStep: i32(rowBytes), depth: w.valueDim.get });
      const deltas = loadRow(state.get, rowBytes).map((code) => f.let("v128", code));
      for (const [index, dWeight] of tile.entries()) {
        const place = (index >> 1) * weightRow + (index & 1) * 16;
        const rest = op("f32x4.sub", dWeight.get, (deltas[index & 1] as Local).get);
        f.emit(memory("v128.store", place, to.get, op("f32x4.mul", memory("v128.load", place, at.get), rest)));
      }
      f.emit(to.set(add(to.get, i32(groupKeys * weightRow))));
      f.emit(value.set(add(value.get, mul(w.valueDim.get, i32(groupKeys * 4)))));
    });

    const partPanel = add(mul(chunk.get, mul(w.heads.get, w.panels.get)), panel.get);
    const part = f.let("i32", add(w.parts.get, mul(mul(partPanel, dimFours.get), i32(rowBytes))));
    const partEnd = f.let("i32", add(part.get, mul(dimFours.get, i32(rowBytes))));
    const element = f.let("i32", scratch.elements.get);
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
      product(module, f, tile, { a: element.get, aLane: 4, aStep: 16, b: dScores.get, bStep: i32(weightRow), depth: count.get });
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
  module: ModuleBuilder,
  f: FunctionBuilder,
  block: KeyBlock,
  { query, rows, offset }: { readonly query: Local; readonly rows: Local; readonly offset: Local },
  operands: KeyOperands,
): void {
  const { weights, row, dim, to } = operands;
  const tile = tileLocals(f);
  const key = f.local("i32");
  const rowLength = f.let("i32", words(dim.get));
  f.for(key, block.whole.get, i32(groupKeys), () => {
    const seeing = sub(sub(add(block.first.get, key.get), offset.get), query.get);
    const first = f.let("i32", op("i32.and", positive(f, seeing).get, i32(-panelQueries)));
    f.if(op("i32.lt_s", first.get, rows.get), () => {
      const a = f.let("i32", add(add(weights.get, mul(key.get, i32(weightRow))), words(first.get)));
      const b = f.let("i32", add(operands.rows.get, mul(add(query.get, first.get), row.get)));
      const depth = f.let("i32", sub(rows.get, first.get));
      const target = f.let("i32", add(to.get, mul(key.get, rowLength.get)));
      const end = f.let("i32", add(target.get, rowLength.get));
      f.while(target, end.get, i32(rowBytes), () => {
        const at = f.let("i32", target.get);
        for (let i = 0; i < groupKeys; i++) {
          for (const [j, code] of loadRow(at.get).entries()) f.emit((tile[i * 2 + j] as Local).set(code));
          f.emit(at.set(add(at.get, rowLength.get)));
        }
        product(module, f, tile, { a: a.get, aLane: weightRow, aStep: 4, b: b.get, bStep: row.get, depth: depth.get });
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

/** Adds the parts of dQ of one block of queries of one head. */
export function printFinishBackward(module: ModuleBuilder, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const w = readWords(f, backwardWords, [
    ...(["dQueries", "dQueryOffsets", "dQueryRow", "parts", "queryCount", "keyCount", "offset", "dim", "scale"] as const),
    ...(["heads", "chunkKeys", "chunks", "panels", "queryBlocks"] as const),
  ]);
  const head = f.let("i32", op("i32.div_u", f.param(1).get, w.queryBlocks.get));
  const firstQuery = f.let("i32", mul(op("i32.rem_u", f.param(1).get, w.queryBlocks.get), i32(blockQueries)));
  const rows = least(f, i32(blockQueries), sub(w.queryCount.get, firstQuery.get));
  const target = f.let("i32", add(add(w.dQueries.get, tableEntry(w.dQueryOffsets, head.get)), mul(firstQuery.get, w.dQueryRow.get)));
  const panelBytes = f.let("i32", mul(roundedUp(w.dim.get, 4), i32(rowBytes)));
  const chunkBytes = f.let("i32", mul(mul(w.heads.get, w.panels.get), panelBytes.get));
  const scale = op("f32x4.splat", op("f32.reinterpret_i32", w.scale.get));
  const row = f.local("i32");
  f.for(row, rows.get, i32(panelQueries), () => {
    const query = f.let("i32", add(firstQuery.get, row.get));
    const panel = f.let("i32", add(w.parts.get, mul(add(mul(head.get, w.panels.get), op("i32.shr_u", query.get, i32(3))), panelBytes.get)));
    const seen = f.let("i32", add(lastSeen(f, add(query.get, i32(panelQueries - 1)), w).get, i32(1)));
    const part = f.let("i32", add(panel.get, chunkBytes.get));
    const firstKey = f.let("i32", w.chunkKeys.get);
    f.while(firstKey, seen.get, w.chunkKeys.get, () => {
      const byte = f.local("i32");
      f.for(byte, panelBytes.get, i32(16), () => {
        const at = add(panel.get, byte.get);
        f.emit(memory("v128.store", 0, at, op("f32x4.add", memory("v128.load", 0, at), memory("v128.load", 0, add(part.get, byte.get)))));
      });
      f.emit(part.set(add(part.get, chunkBytes.get)));
    });
    scalePanel(f, panel.get, w.dim.get, [scale, scale]);
    storePanel(f, panel, w.dim, f.let("i32", sub(rows.get, row.get)), add(target.get, mul(row.get, w.dQueryRow.get)), w.dQueryRow);
  });
}
