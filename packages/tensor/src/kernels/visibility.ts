/**
 * Which keys a query of attention sees, the one description for every kernel of attention. With `offset` = keys − queries, the last query
 * stands at the last key and query i at key i + offset. It sees
 *
 *     keys 0 … prefix − 1, and keys first(i) … last(i)
 *     last(i)  = min(keys − 1, i + lastOffset)                  lastOffset = offset where attention is causal
 *     first(i) = max(0, i + firstOffset, starts[batch, i])      firstOffset = offset + 1 − window
 *
 * Neither end falls from one query to the next (`starts` never do). So all of queries a … b see keys first(b) … last(a), which need no
 * mask, and none of them sees a key outside first(a) … last(b) but for the prefix: such tiles cost nothing. In the other direction, key k
 * behind the prefix is seen by the queries from k − lastOffset up to the last one whose first(i) is at most k.
 */
export interface Visibility {
  readonly queryCount: number;
  readonly keyCount: number;
  /** null where queries see all keys behind their own. */
  readonly lastOffset: number | null;
  /** null without a window. */
  readonly firstOffset: number | null;
  /** Keys in front that all queries see. */
  readonly prefix: number;
}

/** What the attributes of `attention` and `attentionBackward` say. */
export function visibilityOf(
  attributes: Readonly<Record<string, number | boolean | string>>,
  queryCount: number,
  keyCount: number,
): Visibility {
  const { isCausal, window, prefix } = attributes;
  const offset = keyCount - queryCount;
  return {
    queryCount,
    keyCount,
    lastOffset: isCausal ? offset : null,
    firstOffset: window === undefined ? null : offset + 1 - Number(window),
    prefix: Number(prefix ?? 0),
  };
}

/** Pairs of a query and a key that it sees, of one head; the most that there can be where queries have starts. */
export function visiblePairs({ queryCount, keyCount, lastOffset, firstOffset, prefix }: Visibility): number {
  if (lastOffset === null) return queryCount * keyCount;
  if (firstOffset === null && prefix === 0) return queryCount * (lastOffset + (queryCount + 1) / 2);
  let pairs = queryCount * prefix;
  for (let query = 0; query < queryCount; query++) {
    const first = Math.max(prefix, query + (firstOffset ?? Number.NEGATIVE_INFINITY));
    pairs += Math.max(0, query + lastOffset + 1 - first);
  }
  return pairs;
}
