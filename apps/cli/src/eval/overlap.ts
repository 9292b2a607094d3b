/** Two texts that are compared. */
export interface Pair {
  readonly expected: string;
  readonly answer: string;
}

/** A text without what a person would not call a difference: case, punctuation and white space (NFKC). */
export function normalized(text: string): string {
  return text
    .normalize("NFKC")
    .toLowerCase()
    .replace(/[\p{P}\p{S}]/gu, " ")
    .replace(/\s+/g, " ")
    .trim();
}

function wordsOf(text: string): string[] {
  return text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
}

/**
 * ROUGE-L (Lin 2004): the mean over pairs of F1 of the longest common subsequence of words, in [0, 1]. Words are runs of letters and digits in
 * lower case, as in Google's rouge_score without stemming, letters beyond ASCII included.
 */
export function rougeL(pairs: readonly Pair[]): number {
  const scores = pairs.map(({ expected, answer }) => {
    const [wanted, given] = [wordsOf(expected), wordsOf(answer)];
    const common = commonLength(wanted, given);
    return common === 0 ? 0 : (2 * common) / (wanted.length + given.length);
  });
  return scores.reduce((sum, score) => sum + score, 0) / Math.max(1, pairs.length);
}

/** The length of the longest common subsequence. */
function commonLength(a: readonly string[], b: readonly string[]): number {
  let row = new Uint32Array(b.length + 1);
  for (const word of a) {
    const next = new Uint32Array(b.length + 1);
    for (let j = 1; j <= b.length; j++) next[j] = word === b[j - 1] ? (row[j - 1] ?? 0) + 1 : Math.max(row[j] ?? 0, next[j - 1] ?? 0);
    row = next;
  }
  return row[b.length] ?? 0;
}

/** Longest sequences of characters that chrF counts, and how many times more recall weighs than precision. */
const [mostCharacters, beta] = [6, 2];

/** chrF2 (Popović 2015) of all pairs together, from 0 to 100: F-score of sequences of one to six characters, white space left out, as sacreBLEU counts. */
export function chrf(pairs: readonly Pair[]): number {
  let [precision, recall, orders] = [0, 0, 0];
  for (let length = 1; length <= mostCharacters; length++) {
    let [matches, given, wanted] = [0, 0, 0];
    for (const pair of pairs) {
      const [own, reference] = [sequencesOf(pair.answer, length), sequencesOf(pair.expected, length)];
      for (const [sequence, count] of own) matches += Math.min(count, reference.get(sequence) ?? 0);
      // As sacreBLEU counts: an answer has no sequences of a length of which its reference has none.
      given += reference.size === 0 ? 0 : total(own);
      wanted += total(reference);
    }
    if (given === 0 || wanted === 0) continue;
    precision += matches / given;
    recall += matches / wanted;
    orders++;
  }
  if (precision + recall === 0) return 0;
  const [p, r] = [precision / orders, recall / orders];
  return (100 * (1 + beta ** 2) * p * r) / (beta ** 2 * p + r);
}

function sequencesOf(text: string, length: number): Map<string, number> {
  const characters = [...text.replace(/\s+/g, "")];
  const counts = new Map<string, number>();
  for (let i = 0; i + length <= characters.length; i++) {
    const sequence = characters.slice(i, i + length).join("");
    counts.set(sequence, (counts.get(sequence) ?? 0) + 1);
  }
  return counts;
}

function total(counts: ReadonlyMap<string, number>): number {
  let sum = 0;
  for (const count of counts.values()) sum += count;
  return sum;
}
