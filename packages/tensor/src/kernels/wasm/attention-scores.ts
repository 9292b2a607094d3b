import { type FunctionBuilder, f32x4, i32, type Local } from "./assembler.js";
import { add, groupKeys, mul, product, rowBytes } from "./attention-panels.js";
import { type Sight, visibilityMask } from "./attention-visibility.js";
import { choose } from "./math.js";

export interface ScoreOperands extends Sight {
  /** Keys packed by fours, [depth][4] each, from the first on; a panel of queries, [depth][8]. */
  readonly keys: Local;
  readonly queries: Local;
  readonly depth: Local;
  /** Positions of the first key and of the panel's first query. */
  readonly firstKey: Local;
  readonly firstQuery: Local;
  /** Keys to compute, a multiple of four. */
  readonly count: Local;
}

/** Computes keys · queries, -∞ where the query does not see the key: four keys after the other, with which `use` finds the tile filled. */
export function scores(f: FunctionBuilder, tile: readonly Local[], operands: ScoreOperands, use: () => void): void {
  const { keys, queries, depth, firstKey, firstQuery, count } = operands;
  const mask = visibilityMask(f, operands, firstQuery);
  const key = f.let("i32", firstKey.get);
  const end = f.let("i32", add(firstKey.get, count.get));
  const from = f.let("i32", keys.get);
  f.while(key, end.get, i32(groupKeys), () => {
    for (const local of tile) f.emit(local.set(f32x4(0)));
    product(f, tile, { a: from.get, aLane: 4, aStep: 16, b: queries.get, bStep: i32(rowBytes), depth: depth.get });
    mask(key, (isHidden) => {
      for (const [index, sum] of tile.entries()) {
        f.emit(sum.set(choose(isHidden(index >> 1, index & 1), f32x4(Number.NEGATIVE_INFINITY), sum.get)));
      }
    });
    use();
    f.emit(from.set(add(from.get, mul(depth.get, i32(groupKeys * 4)))));
  });
}
