import { type Device, type Tensor, tensor } from "@lowrank/tensor";
import { likeliest } from "./likeliest.js";
import { isWarped, logProbability, type SamplingOptions, sample, sampleOf, sampleWarped } from "./sample.js";

/** What of the logits a choice reads: the index of the largest, those of the largest few, or all. */
export type ChoiceKind = "greedy" | `top ${number}` | "all";

/** Results of a pass that choose the next token. */
export interface Chosen {
  /** f32 [batch, vocab], but for greedy choices; read where the others do not say enough. */
  readonly logits: Tensor | null;
  /** i32 [batch, 1 or slots]. */
  readonly ids: Tensor | null;
  readonly idLogits: Tensor | null;
  /** i32 [batch]: how many logits there are like those of `ids`. */
  readonly count: Tensor | null;
}

/** Room beside topK for logits that the search on the device cannot tell from the last of them. */
const spareSlots = 32;
/** From so many on, reading all logits costs no more. */
const maxSlots = 4096;

/** What a choice is made by, and whether probabilities are wanted beside it. */
export interface ChoiceOptions extends SamplingOptions {
  readonly hasLogProbabilities?: boolean;
  /** Whether texts say which tokens may come. */
  readonly isMasked?: boolean;
}

/** A text for which a token is chosen: how it is drawn, and the tokens that it holds. */
export interface ChoiceText {
  readonly random: () => number;
  readonly seen: () => Iterable<number>;
  /** Bits of the tokens that may come, of token i the bit i % 32 of number ⌊i / 32⌋; null for all. */
  readonly allowed?: () => ArrayLike<number> | null;
}

/** A chosen token, and the logarithm of its probability where that was wanted. */
export interface Choice {
  readonly token: number;
  readonly logProbability: number | null;
}

/** What has to be read of logits of `vocab` tokens; the same for all topK that a power of two serves. */
export function choiceKind(options: ChoiceOptions, vocab: number): ChoiceKind {
  const { temperature = 0, topK, hasLogProbabilities, isMasked } = options;
  if (isWarped(options) || hasLogProbabilities || isMasked) return "all";
  if (temperature === 0) return "greedy";
  if (topK === undefined) return "all";
  const slots = 2 ** Math.ceil(Math.log2(topK + spareSlots));
  return slots > maxSlots || slots * 4 > vocab ? "all" : `top ${slots}`;
}

/** What a choice reads of logits [batch, vocab]; `k` is topK, i32 [1], where there is one. */
export function chosen(logits: Tensor, kind: ChoiceKind, k: Tensor | null): Chosen {
  if (kind === "greedy") return { logits: null, ids: logits.argmax(-1, { keepDims: true }), idLogits: null, count: null };
  if (kind === "all" || !k) return { logits, ids: null, idLogits: null, count: null };
  const { ids, logits: idLogits, count } = likeliest(logits, k, Number(kind.slice(4)));
  return { logits, ids, idLogits, count };
}

/** topK as `chosen` takes it. */
export function countOn(device: Device, { topK }: SamplingOptions): Tensor | null {
  return topK === undefined ? null : tensor([topK], { dtype: "i32", device });
}

/** Reads what was chosen and gives the next token of each text, of those at least for which `isWanted`; frees the results. */
export async function readChoice(
  result: Chosen,
  options: ChoiceOptions,
  texts: readonly ChoiceText[],
  isWanted: (text: number) => boolean,
): Promise<readonly (Choice | null)[]> {
  const { logits, ids, idLogits, count } = result;
  try {
    if (ids && !idLogits) return Array.from(await ids.data(), (token) => ({ token, logProbability: null }));
    const [chosenIds, values, counts] = await Promise.all([ids?.data(), idLogits?.data(), count?.data()]);
    const { topK = 1 } = options;
    const isShort = (text: number): boolean => {
      const found = counts?.[text] ?? 0;
      return found < topK || found > (values?.length ?? 0) / texts.length;
    };
    const readsAll = !chosenIds || (counts && texts.some((_, text) => isWanted(text) && isShort(text)));
    const all = readsAll ? ((await logits?.data()) as Float32Array) : null;
    return texts.map(({ random, seen, allowed }, text) => {
      if (!isWanted(text)) return null;
      if (chosenIds && values && !isShort(text)) {
        const slots = values.length / texts.length;
        const found = counts?.[text] ?? 0;
        const start = text * slots;
        const [own, numbers] = [chosenIds, values].map((data) => Array.from(data.slice(start, start + found)));
        return { token: sampleOf({ ids: own ?? [], logits: numbers ?? [] }, options, random), logProbability: null };
      }
      const vocab = (all?.length ?? 0) / texts.length;
      const row = (all ?? new Float32Array()).slice(text * vocab, (text + 1) * vocab);
      const mask = allowed?.() ?? null;
      const open = mask ? masked(row, mask) : row;
      const token = isWarped(options) ? sampleWarped(open, options, seen(), random) : sample(open, options, random);
      return { token, logProbability: options.hasLogProbabilities ? logProbability(row, token) : null };
    });
  } finally {
    for (const t of [logits, ids, idLogits, count]) t?.dispose();
  }
}

/** Logits with −∞ for what may not come. Throws RangeError where nothing may. */
function masked(logits: Float32Array, mask: ArrayLike<number>): Float32Array {
  const open = logits.map((logit, i) => (((mask[i >> 5] ?? 0) >>> (i & 31)) & 1 ? logit : Number.NEGATIVE_INFINITY));
  if (open.every((logit) => logit === Number.NEGATIVE_INFINITY))
    throw new RangeError("generate: allowedTokens leaves no token that may come next. Let an end token come where a text is complete.");
  return open;
}
