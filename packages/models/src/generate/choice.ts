import { type Device, type Tensor, tensor } from "@lowrank/tensor";
import { likeliest } from "./likeliest.js";
import { type SamplingOptions, sample, sampleOf } from "./sample.js";

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

/** What has to be read of logits of `vocab` tokens; the same for all topK that a power of two serves. */
export function choiceKind({ temperature = 0, topK }: SamplingOptions, vocab: number): ChoiceKind {
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
  options: SamplingOptions,
  randoms: readonly (() => number)[],
  isWanted: (text: number) => boolean,
): Promise<ArrayLike<number | null>> {
  const { logits, ids, idLogits, count } = result;
  try {
    if (ids && !idLogits) return await ids.data();
    const [chosenIds, values, counts] = await Promise.all([ids?.data(), idLogits?.data(), count?.data()]);
    const { topK = 1 } = options;
    const texts = randoms.map((_, text) => text);
    const isShort = (text: number): boolean => {
      const found = counts?.[text] ?? 0;
      return found < topK || found > (values?.length ?? 0) / randoms.length;
    };
    const readsAll = !chosenIds || (counts && texts.some((text) => isWanted(text) && isShort(text)));
    const all = readsAll ? ((await logits?.data()) as Float32Array) : null;
    const part = <T extends { slice(start: number, end: number): T; readonly length: number }>(data: T, text: number, length: number): T =>
      data.slice(text * length, (text + 1) * length);
    return texts.map((text) => {
      if (!isWanted(text)) return null;
      const random = randoms[text] as () => number; // one a text
      if (chosenIds && values && !isShort(text)) {
        const slots = values.length / randoms.length;
        const found = counts?.[text] ?? 0;
        const start = text * slots;
        const [own, numbers] = [chosenIds, values].map((data) => Array.from(data.slice(start, start + found)));
        return sampleOf({ ids: own ?? [], logits: numbers ?? [] }, options, random);
      }
      const row = part(all ?? new Float32Array(), text, (all?.length ?? 0) / randoms.length);
      return sample(row, options, random);
    });
  } finally {
    for (const t of [logits, ids, idLogits, count]) t?.dispose();
  }
}
