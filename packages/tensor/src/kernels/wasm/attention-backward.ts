import { type Code, type FunctionBuilder, f32, f32x4, i32, type Local, type ModuleBuilder, memory, op } from "./assembler.js";
import {
  add,
  laneSum,
  least,
  mul,
  panelQueries,
  readWords,
  roundedUp,
  rowBytes,
  scalePanel,
  storePanel,
  storeRow,
  sub,
  tableEntry,
  words,
} from "./attention-panels.js";
import { endSeen } from "./attention-visibility.js";
import { kernelParams } from "./loop.js";
import { packPanel } from "./pack.js";

/**
 * Gradients of attention by blocks (Dao 2023, algorithm 2), weights computed anew from logsumexp. With P the weights and
 * delta = Σ dOut · out of each query: dV = Pᵀ dOut, dP = dOut Vᵀ, dS = P (dP - delta), dQ = scale dS K, dK = scale dSᵀ Q.
 *
 * Three steps. The first packs queries and dOut by panels. The second (attention-gradients.ts) takes a chunk of the keys of one head a tile past all queries that
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
  /** What queries see: the words of attention-visibility.ts. */
  "queryCount",
  "keyCount",
  "lastOffset",
  "firstOffset",
  "prefix",
  "starts",
  "startOffsets",
  "dim",
  "valueDim",
  /** The bits of scale · log₂ e, or of scale where bodies come in between, and of scale. */
  "factor",
  "scale",
  /** Query heads of the whole batch, how many of them go to a key head, and those of one element of the batch. */
  "heads",
  "group",
  "ownHeads",
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
/** Beside each panel: log₂ of the sum of exponentials, and -delta. */
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
      f.emit(memory("f32.store", rowBytes, at.get, op("f32.neg", dot(f, a, b, w.valueDim).get)));
      f.emit(a.set(add(a.get, w.outRow.get)));
      f.emit(b.set(add(b.get, w.dOutRow.get)));
    });
    f.emit(state.set(add(state.get, i32(stateBytes))));
  });
}

/** Σ a[d] · b[d]. */
function dot(f: FunctionBuilder, a: Local, b: Local, dim: Local): Local {
  const d = f.let("i32", i32(0));
  const whole = f.let("i32", op("i32.and", dim.get, i32(-4)));
  const sums = f.let("v128", f32x4(0));
  const at = (base: Local): Code => add(base.get, words(d.get));
  f.while(d, whole.get, i32(4), () => {
    f.emit(sums.set(f.multiplyAdd(memory("v128.load", 0, at(a)), memory("v128.load", 0, at(b)), sums.get)));
  });
  const sum = f.let("f32", laneSum(sums));
  f.while(d, dim.get, i32(1), () => {
    f.emit(sum.set(op("f32.add", sum.get, op("f32.mul", memory("f32.load", 0, at(a)), memory("f32.load", 0, at(b))))));
  });
  return sum;
}

/** Adds the parts of dQ of one block of queries of one head. */
export function printFinishBackward(module: ModuleBuilder, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const w = readWords(f, backwardWords, [
    ...(["dQueries", "dQueryOffsets", "dQueryRow", "parts", "queryCount", "keyCount", "lastOffset", "prefix", "dim", "scale"] as const),
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
    const seen = endSeen(f, add(query.get, i32(panelQueries - 1)), w);
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
