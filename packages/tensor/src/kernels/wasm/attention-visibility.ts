import { type Code, type FunctionBuilder, i32, i32x4, type Local, op } from "./assembler.js";
import { add, groupKeys, least, loadRow, panelQueries, positive, roundedUp, sub, tableEntry, words } from "./attention-panels.js";

/** A position beyond all keys to which numbers of queries can be added. */
export const everything: number = 2 ** 30;

/** Arguments of the kernels, as kernels/visibility.ts has them; `lastOffset` is `everything` and `firstOffset` its negative for null. */
export type VisibilityWord = "queryCount" | "keyCount" | "lastOffset" | "firstOffset" | "prefix" | "starts" | "startOffsets";

/** What a head's queries see. */
export interface Sight extends Readonly<Record<Exclude<VisibilityWord, "startOffsets">, Local>> {
  /** Address of the first key that each query of the head may see; 0 where all may see the first. */
  readonly starts: Local;
}

/** What the queries of a head see, from the arguments: `starts` is an address or 0, `startOffsets` a table of each head's bytes from there. */
export function sightOf(f: FunctionBuilder, w: Readonly<Record<VisibilityWord, Local>>, head: Code): Sight {
  const { queryCount, keyCount, lastOffset, firstOffset, prefix } = w;
  const starts = f.let("i32", i32(0));
  f.if(w.starts.get, () => f.emit(starts.set(add(w.starts.get, tableEntry(w.startOffsets, head)))));
  return { queryCount, keyCount, lastOffset, firstOffset, prefix, starts };
}

/** The last key that a query sees behind the prefix. */
export function lastSeen(f: FunctionBuilder, query: Code, { keyCount, lastOffset }: Pick<Sight, "keyCount" | "lastOffset">): Local {
  return least(f, add(query, lastOffset.get), sub(keyCount.get, i32(1)));
}

/** The first key that a query sees behind the prefix. */
export function firstSeen(f: FunctionBuilder, query: Code, { firstOffset, starts }: Sight): Local {
  const at = f.let("i32", query);
  const key = positive(f, add(at.get, firstOffset.get));
  f.if(starts.get, () => f.emit(key.set(greatest(f, key.get, tableEntry(starts, at.get)).get)));
  return key;
}

/** Whether queries see from some key on only: then not every query sees the keys before its last. */
export function isLimited({ firstOffset, starts }: Sight): Code {
  return op("i32.or", starts.get, op("i32.gt_s", firstOffset.get, i32(-everything)));
}

/** The end of the keys that a query sees, prefix and all. */
export function endSeen(f: FunctionBuilder, query: Code, sight: Pick<Sight, "keyCount" | "lastOffset" | "prefix">): Local {
  return greatest(f, add(lastSeen(f, query, sight).get, i32(1)), sight.prefix.get);
}

/** Keys of a block, from `first` on, that a panel computes: what none of its queries sees is left out in front and behind, by fours. */
export function seenKeys(
  f: FunctionBuilder,
  sight: Sight,
  query: Local,
  first: Local,
  most: Local,
): { readonly skipped: Local; readonly count: Local } {
  const end = endSeen(f, add(query.get, i32(panelQueries - 1)), sight);
  const seenEnd = least(f, roundedUp(sub(end.get, first.get), groupKeys), most.get);
  const skipped = f.let("i32", op("i32.and", positive(f, sub(firstSeen(f, query.get, sight).get, first.get)).get, i32(-groupKeys)));
  f.if(op("i32.lt_s", first.get, sight.prefix.get), () => f.emit(skipped.set(i32(0))));
  return { skipped, count: f.let("i32", sub(seenEnd.get, skipped.get)) };
}

/** Whether a query of a four of keys, number `lane`, and of a vector of the panel, number `vector`, sees it: a mask of those that do not. */
export type IsHidden = (lane: number, vector: number) => Code;

/**
 * Prepares a panel's mask. The result writes `hide` for the four keys from `key` on, where not all queries see all of them, and is to be
 * called where that is known.
 */
export function visibilityMask(f: FunctionBuilder, sight: Sight, firstQuery: Local): (key: Local, hide: (is: IsHidden) => void) => void {
  const { queryCount, keyCount, lastOffset, firstOffset, prefix, starts } = sight;
  const lanes = [i32x4(0, 1, 2, 3), i32x4(4, 5, 6, 7)];
  const seenByAll = lastSeen(f, firstQuery.get, sight);
  const last = least(f, add(firstQuery.get, i32(panelQueries - 1)), sub(queryCount.get, i32(1)));
  const lastFirst = firstSeen(f, last.get, sight);
  const firsts = lanes.map((lane) => f.let("v128", op("i32x4.add", op("i32x4.splat", add(firstQuery.get, firstOffset.get)), lane))) as [
    Local,
    Local,
  ];
  f.if(starts.get, () => {
    const rows = loadRow(add(starts.get, words(firstQuery.get)));
    for (const [j, local] of firsts.entries()) f.emit(local.set(op("i32x4.max_s", local.get, rows[j] as Code)));
  });
  return (key, hide) => {
    const isAfter = op("i32.gt_s", add(key.get, i32(groupKeys - 1)), seenByAll.get);
    const isPartial = op("i32.or", isAfter, op("i32.lt_s", key.get, lastFirst.get));
    const isBehind = op("i32.gt_s", add(key.get, i32(groupKeys)), prefix.get);
    f.if(op("i32.and", isPartial, isBehind), () => {
      const end = op("i32x4.splat", sub(keyCount.get, i32(1)));
      const own = op("i32x4.splat", add(firstQuery.get, lastOffset.get));
      const limits = lanes.map((lane) => f.let("v128", op("i32x4.min_s", op("i32x4.add", own, lane), end)));
      const behind = f.let("v128", op("i32x4.splat", prefix.get));
      hide((lane, vector) => {
        const at = op("i32x4.splat", add(key.get, i32(lane)));
        const isOutside = op(
          "v128.or",
          op("i32x4.gt_s", at, (limits[vector] as Local).get),
          op("i32x4.lt_s", at, (firsts[vector] as Local).get),
        );
        return op("v128.and", isOutside, op("i32x4.ge_s", at, behind.get));
      });
    });
  };
}

function greatest(f: FunctionBuilder, a: Code, b: Code): Local {
  const x = f.let("i32", a);
  const y = f.let("i32", b);
  return f.let("i32", [x.get, y.get, op("i32.gt_s", x.get, y.get), op("select")]);
}
