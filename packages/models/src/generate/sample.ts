/** How the next token is chosen. */
export interface SamplingOptions {
  /** 0, the default, takes the likeliest token; higher is more random. */
  readonly temperature?: number;
  /** Only the k likeliest tokens. */
  readonly topK?: number;
  /** Only the likeliest tokens that together have this probability (Holtzman et al. 2020). */
  readonly topP?: number;
  /** Only tokens that are at least this share as likely as the likeliest one (Nguyen et al. 2024). */
  readonly minP?: number;
  /** Only the tokens whose surprise is nearest to the mean, that together have this probability (Meister et al. 2022). */
  readonly typicalP?: number;
  /** Makes tokens that a text holds already less likely: their positive logits are divided by it, negative ones multiplied (Keskar et al. 2019). */
  readonly repetitionPenalty?: number;
  /** The same seed gives the same text. */
  readonly seed?: number;
}

/** Whether a choice looks at all logits in ways that no kernel has. */
export function isWarped({ minP = 0, typicalP = 1, repetitionPenalty = 1 }: SamplingOptions): boolean {
  return minP > 0 || typicalP < 1 || repetitionPenalty !== 1;
}

/** Uniform numbers in [0, 1) from a seed: sfc32 (Doty-Humphrey's PractRand), 32 bits each. */
export function seededRandom(seed: number): () => number {
  let [a, b, c, counter] = [0x9e3779b9 | 0, seed | 0, (seed / 2 ** 32) | 0, 1];
  const next = (): number => {
    const t = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return (t >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < 12; i++) next();
  return next;
}

/** The index of the largest number; the first of equal ones. */
function argmax(logits: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++)
    if ((logits[i] ?? Number.NEGATIVE_INFINITY) > (logits[best] ?? Number.NEGATIVE_INFINITY)) best = i;
  return best;
}

/** Chooses a token by softmax(logits / temperature) among the topK and topP likeliest; the likeliest when the temperature is 0. */
export function sample(logits: ArrayLike<number>, options: SamplingOptions, random: () => number): number {
  if (!options.temperature) return argmax(logits);
  if (options.topK !== undefined && options.topK < logits.length) return sampleOf(largestOf(logits, options.topK), options, random);
  return sampleAll(logits instanceof Float32Array ? logits : Float32Array.from(logits), options, random);
}

/** Token ids and their logits, in any order. */
export interface Candidates {
  readonly ids: ArrayLike<number>;
  readonly logits: ArrayLike<number>;
}

/** Chooses among the topK likeliest of the candidates, which hold them, by softmax(logits / temperature), and the topP likeliest of those. */
export function sampleOf({ ids, logits }: Candidates, { temperature = 1, topK, topP }: SamplingOptions, random: () => number): number {
  const order = sorted(logits, ids).slice(0, topK ?? ids.length);
  const largest = logits[order[0] ?? 0] ?? 0;
  const weights = order.map((at) => Math.exp(((logits[at] ?? 0) - largest) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let count = weights.length;
  if (topP !== undefined && topP < 1) {
    let sum = 0;
    count = 0;
    while (count < weights.length && sum < topP * total) sum += weights[count++] ?? 0;
    count = Math.max(count, 1);
  }
  let rest = random() * weights.slice(0, count).reduce((sum, weight) => sum + weight, 0);
  for (let i = 0; i < count; i++) {
    rest -= weights[i] ?? 0;
    if (rest < 0) return ids[order[i] ?? 0] ?? 0;
  }
  return ids[order[count - 1] ?? 0] ?? 0;
}

/** The k largest logits, of equals those of the smallest ids, in the order of their ids. */
function largestOf(logits: ArrayLike<number>, k: number): Candidates {
  const least = nthLargest(Float32Array.from(logits), k);
  let equals = k;
  for (let id = 0; id < logits.length; id++) if ((logits[id] ?? 0) > least) equals--;
  const ids: number[] = [];
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id] ?? 0;
    if (logit > least || (logit === least && equals-- > 0)) ids.push(id);
  }
  return { ids, logits: ids.map((id) => logits[id] ?? 0) };
}

/** The number of which n are at least as large, by Hoare's selection, which reorders the numbers. */
function nthLargest(numbers: Float32Array, n: number): number {
  let [low, high] = [0, numbers.length - 1];
  while (low < high) {
    const pivot = numbers[(low + high) >> 1] ?? 0;
    let [i, j] = [low, high];
    while (i <= j) {
      while ((numbers[i] ?? 0) > pivot) i++;
      while ((numbers[j] ?? 0) < pivot) j--;
      if (i > j) break;
      const kept = numbers[i] ?? 0;
      numbers[i++] = numbers[j] ?? 0;
      numbers[j--] = kept;
    }
    if (n - 1 <= j) high = j;
    else if (n - 1 >= i) low = i;
    else break;
  }
  return numbers[n - 1] ?? 0;
}

/** Places of candidates, the likeliest first, of equals that of the smallest id. */
function sorted(logits: ArrayLike<number>, ids: ArrayLike<number>): number[] {
  return Array.from({ length: ids.length }, (_, i) => i).sort(
    (i, j) => (logits[j] ?? 0) - (logits[i] ?? 0) || (ids[i] ?? 0) - (ids[j] ?? 0),
  );
}

/**
 * Chooses among all tokens by softmax(logits / temperature), or among the topP likeliest: what `sampleOf` chooses, without sorting them.
 * Tokens are gathered in intervals of their logits, of which only the one that the choice falls into is put in order.
 */
export function sampleAll(logits: Float32Array, { temperature = 1, topP }: SamplingOptions, random: () => number): number {
  const tokens = new Intervals(logits, temperature);
  const limit = topP !== undefined && topP < 1 ? tokens.find((sum) => sum >= topP * tokens.total).sum : tokens.total;
  const target = random() * limit;
  return tokens.find((sum) => sum > target).id;
}

/** Intervals of logits, from the largest down; the last holds all that weigh less than e^-40 of the likeliest. */
const intervalCount = 4096;
const depth = 40;

/** Tokens by their logits, and what those of each interval weigh together. Loops over all tokens are plain: they are what a token costs. */
class Intervals {
  readonly total: number;
  readonly #sums = new Float64Array(intervalCount);
  /** The interval of each token. */
  readonly #intervals: Uint16Array;
  readonly #largest: number;

  constructor(
    readonly logits: Float32Array,
    readonly temperature: number,
  ) {
    const { length } = logits;
    let largest = Number.NEGATIVE_INFINITY;
    for (let id = 0; id < length; id++) {
      const logit = logits[id] as number; // id is one of them
      if (logit > largest) largest = logit;
    }
    const scale = (intervalCount - 1) / (depth * temperature);
    const [sums, intervals] = [this.#sums, new Uint16Array(length)];
    for (let id = 0; id < length; id++) {
      const below = largest - (logits[id] as number); // id is one of them
      const place = below * scale;
      const interval = place < intervalCount - 1 ? place | 0 : intervalCount - 1;
      intervals[id] = interval;
      sums[interval] = (sums[interval] as number) + Math.exp(-below / temperature); // there are as many sums as intervals
    }
    this.#largest = largest;
    this.#intervals = intervals;
    this.total = sums.reduce((sum, weight) => sum + weight, 0);
  }

  /** The first token, from the likeliest on, with which the sum of weights is enough; the last one where it never is. */
  find(isEnough: (sum: number) => boolean): { readonly id: number; readonly sum: number } {
    let [end, sum, last] = [0, 0, 0];
    for (let interval = 0; interval < intervalCount; interval++) {
      const weight = this.#sums[interval] ?? 0;
      if (weight === 0) continue;
      [last, sum] = [interval, end];
      end += weight;
      if (isEnough(end)) break;
    }
    let id = 0;
    for (id of this.#members(last)) {
      sum += Math.exp(((this.logits[id] ?? 0) - this.#largest) / this.temperature);
      if (isEnough(sum)) break;
    }
    return { id, sum };
  }

  /** Tokens of an interval, the likeliest first. */
  #members(interval: number): readonly number[] {
    const [logits, intervals] = [this.logits, this.#intervals];
    const ids: number[] = [];
    let areEqual = true;
    for (let id = 0; id < intervals.length; id++) {
      if (intervals[id] !== interval) continue;
      areEqual &&= ids.length === 0 || logits[id] === logits[ids[0] ?? 0];
      ids.push(id);
    }
    return areEqual ? ids : ids.sort((i, j) => (logits[j] ?? 0) - (logits[i] ?? 0) || i - j);
  }
}

/**
 * Chooses among all tokens with every option, in transformers' order: the penalty on what `seen` holds, temperature, topK, topP, minP, typicalP.
 * The likeliest after the penalty when the temperature is 0.
 */
export function sampleWarped(logits: Float32Array, options: SamplingOptions, seen: Iterable<number>, random: () => number): number {
  const { temperature = 0, topK = logits.length, topP = 1, minP = 0, typicalP = 1, repetitionPenalty = 1 } = options;
  const own = Float64Array.from(logits);
  if (repetitionPenalty !== 1)
    for (const id of new Set(seen)) {
      const logit = own[id] ?? 0;
      own[id] = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
    }
  if (!temperature) return argmax(own);
  let ids = Array.from({ length: own.length }, (_, id) => id).sort((i, j) => (own[j] ?? 0) - (own[i] ?? 0) || i - j);
  const largest = own[ids[0] ?? 0] ?? 0;
  const weight = (id: number): number => Math.exp(((own[id] ?? 0) - largest) / temperature);
  ids = upTo(ids.slice(0, topK), weight, topP);
  if (minP > 0) ids = ids.filter((id) => weight(id) >= minP); // the likeliest one weighs 1
  if (typicalP < 1) {
    const total = ids.reduce((sum, id) => sum + weight(id), 0);
    const surprise = (id: number): number => -Math.log(Math.max(weight(id) / total, Number.MIN_VALUE));
    const mean = ids.reduce((sum, id) => sum + (weight(id) / total) * surprise(id), 0);
    ids = upTo(
      ids
        .map((id) => ({ id, away: Math.abs(surprise(id) - mean) }))
        .sort((a, b) => a.away - b.away || a.id - b.id)
        .map(({ id }) => id),
      weight,
      typicalP,
    );
  }
  let rest = random() * ids.reduce((sum, id) => sum + weight(id), 0);
  for (const id of ids) {
    rest -= weight(id);
    if (rest < 0) return id;
  }
  return ids.at(-1) ?? 0;
}

/** The first tokens that together have a share of the probability, one at least. */
function upTo(ids: readonly number[], weight: (id: number) => number, share: number): number[] {
  if (share >= 1) return [...ids];
  const total = ids.reduce((sum, id) => sum + weight(id), 0);
  let [sum, count] = [0, 0];
  while (count < ids.length && sum < share * total) sum += weight(ids[count++] ?? 0);
  return ids.slice(0, Math.max(count, 1));
}

/** The logarithm of a token's probability, by softmax of all logits. */
export function logProbability(logits: Float32Array, token: number): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (const logit of logits) if (logit > largest) largest = logit;
  let total = 0;
  for (const logit of logits) total += Math.exp(logit - largest);
  return (logits[token] ?? Number.NEGATIVE_INFINITY) - largest - Math.log(total);
}

/** Throws RangeError when an option is outside its range. */
export function checkSampling(options: SamplingOptions): void {
  const { temperature = 0, topK = 1, topP = 1, minP = 0, typicalP = 1, repetitionPenalty = 1 } = options;
  if (!(temperature >= 0 && Number.isFinite(temperature)))
    throw new RangeError(`generate: temperature is ${temperature}. Use 0 (greedy) or more.`);
  if (!Number.isInteger(topK) || topK < 1) throw new RangeError(`generate: topK is ${topK}. Use an integer of at least 1.`);
  if (!(topP > 0 && topP <= 1)) throw new RangeError(`generate: topP is ${topP}. Use a number above 0, up to 1.`);
  if (!(minP >= 0 && minP < 1)) throw new RangeError(`generate: minP is ${minP}. Use 0 or more, below 1.`);
  if (!(typicalP > 0 && typicalP <= 1)) throw new RangeError(`generate: typicalP is ${typicalP}. Use a number above 0, up to 1.`);
  if (!(repetitionPenalty > 0 && Number.isFinite(repetitionPenalty)))
    throw new RangeError(`generate: repetitionPenalty is ${repetitionPenalty}. Use a number above 0; 1 changes nothing.`);
}
