import { tokenTypes } from "./fields.js";

/** A vocabulary by number. */
export interface Vocabulary {
  readonly tokens: readonly string[];
  readonly types: ArrayLike<number>;
  readonly scores: ArrayLike<number>;
}

/** Where a token can be cut so that both parts are tokens too. */
interface Cut {
  readonly first: string;
  readonly second: string;
  /** Signs of each. */
  readonly lengths: readonly [first: number, second: number];
}

/**
 * The merges of a SentencePiece vocabulary, which says them by scores: each way to make a token of two others, the tokens of higher score first. What a user
 * defined comes before all. transformers' generate_merges.
 */
export function mergesOfScores({ tokens, types, scores }: Vocabulary): [string, string][] {
  const ids = new Map<string, number>();
  for (let id = 0; id < tokens.length; id++) if (isMerged(types[id])) ids.set(tokens[id] as string, id);
  const scoreOf = (id: number): number => (types[id] === tokenTypes.userDefined ? 0 : (scores[id] ?? 0));
  const order = [...ids.values()].sort((a, b) => scoreOf(b) - scoreOf(a) || a - b);
  const merges: [string, string][] = [];
  for (let from = 0; from < order.length; ) {
    let to = from + 1;
    while (to < order.length && scoreOf(order[to] as number) === scoreOf(order[from] as number)) to++;
    const cuts = order.slice(from, to).flatMap((id) => cutsOf(tokens[id] as string, ids));
    if (to - from > 1) cuts.sort((a, b) => b.lengths[0] - a.lengths[0] || b.lengths[1] - a.lengths[1]);
    for (const { first, second } of cuts) merges.push([first, second]);
    from = to;
  }
  return merges;
}

/** Whether tokens of a type are merged of others: not those that stand for themselves. */
function isMerged(type: number | undefined): boolean {
  return type === undefined || type === tokenTypes.normal || type === tokenTypes.userDefined || type === tokenTypes.unused || type === 0;
}

/** The cuts of a token, the longest first part first. */
function cutsOf(token: string, ids: ReadonlyMap<string, number>): Cut[] {
  const cuts: Cut[] = [];
  if (token.length < 2) return cuts;
  const signs = [...token];
  let at = token.length;
  for (let count = signs.length - 1; count > 0; count--) {
    at -= (signs[count] as string).length;
    const [first, second] = [token.slice(0, at), token.slice(at)];
    if (ids.has(first) && ids.has(second)) cuts.push({ first, second, lengths: [count, signs.length - count] });
  }
  return cuts;
}

/** Scores that say merges as SentencePiece does: the earlier a token is made, the higher. Tokens that no merge makes are the lowest. */
export function scoresOfMerges(tokens: readonly string[], merges: readonly (string | readonly [string, string])[]): Float32Array {
  const rank = new Map<string, number>();
  for (const merge of merges) {
    const whole = typeof merge === "string" ? merge.replace(" ", "") : merge[0] + merge[1];
    if (!rank.has(whole)) rank.set(whole, rank.size);
  }
  return Float32Array.from(tokens, (token) => -(rank.get(token) ?? rank.size));
}
