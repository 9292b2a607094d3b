import { type FunctionBuilder, f32x4, i32, type Local, type ModuleBuilder, memory, op } from "./assembler.js";
import { attentionWords } from "./attention.js";
import { add, groupKeys, least, mul, panelQueries, positive, readWords, roundedUp, sub, tableEntry, words } from "./attention-panels.js";
import { kernelParams } from "./loop.js";
import { packPanel } from "./pack.js";

/** Packs `count` keys by fours, [depth][4] each. Advances `to`. */
export function packKeys(f: FunctionBuilder, from: Local, row: Local, dim: Local, count: Local, to: Local): void {
  const key = f.local("i32");
  const depthStride = f.let("i32", i32(4));
  f.for(key, count.get, i32(groupKeys), () => {
    const lanes = least(f, sub(count.get, key.get), i32(groupKeys));
    packPanel(
      f,
      groupKeys,
      { dtype: "f32", from: add(from.get, mul(key.get, row.get)), laneStride: row, depthStride, lanes, depth: dim },
      to,
    );
  });
}

/** Packs `count` rows by fours of their elements: [element / 4][blockKeys][4], zero up to a multiple of four rows. */
export function packElements(f: FunctionBuilder, from: Local, row: Local, dim: Local, count: Local, blockKeys: Local, to: Local): void {
  const d = f.local("i32");
  const laneStride = f.let("i32", i32(4));
  f.for(d, dim.get, i32(4), () => {
    const lanes = least(f, sub(dim.get, d.get), i32(4));
    const target = f.let("i32", add(to.get, words(mul(d.get, blockKeys.get))));
    const end = f.let("i32", add(target.get, mul(roundedUp(count.get, groupKeys), i32(16))));
    packPanel(f, 4, { dtype: "f32", from: add(from.get, words(d.get)), laneStride, depthStride: row, lanes, depth: count }, target);
    f.while(target, end.get, i32(16), () => f.emit(memory("v128.store", 0, target.get, f32x4(0))));
  });
}

/** Packs one block of keys and values of one head. */
export function printPackAttention(module: ModuleBuilder, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const w = readWords(f, attentionWords, [
    "keys",
    "values",
    "packedKeys",
    "packedValues",
    "keyOffsets",
    "valueOffsets",
    "keyRow",
    "valueRow",
    "keyCount",
    "queryCount",
    "positions",
    "positionOffsets",
    "group",
    "dim",
    "valueDim",
    "blockKeys",
    "keyBlocks",
  ]);
  const tile = f.param(1);
  const head = f.let("i32", op("i32.div_u", tile.get, w.keyBlocks.get));
  const firstKey = f.let("i32", mul(op("i32.rem_u", tile.get, w.keyBlocks.get), w.blockKeys.get));
  const end = f.let("i32", w.keyCount.get);
  f.if(w.positions.get, () => {
    // Of a cache no query sees what stands behind the last of them; weights of 0 meet values as far as a whole panel of queries would see.
    const at = f.let("i32", add(w.positions.get, tableEntry(w.positionOffsets, mul(head.get, w.group.get))));
    f.emit(end.set(least(f, end.get, add(tableEntry(at, i32(0)), roundedUp(w.queryCount.get, panelQueries))).get));
  });
  const count = positive(f, least(f, w.blockKeys.get, sub(end.get, firstKey.get)).get);
  const before = f.let("i32", mul(tile.get, w.blockKeys.get));
  const keys = f.let("i32", add(add(w.keys.get, tableEntry(w.keyOffsets, head.get)), mul(firstKey.get, w.keyRow.get)));
  const values = f.let("i32", add(add(w.values.get, tableEntry(w.valueOffsets, head.get)), mul(firstKey.get, w.valueRow.get)));
  const toKeys = f.let("i32", add(w.packedKeys.get, words(mul(before.get, w.dim.get))));
  const toValues = f.let("i32", add(w.packedValues.get, words(mul(before.get, roundedUp(w.valueDim.get, 4)))));
  packKeys(f, keys, w.keyRow, w.dim, count, toKeys);
  packElements(f, values, w.valueRow, w.valueDim, count, w.blockKeys, toValues);
}
