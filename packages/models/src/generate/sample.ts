/** How the next token is chosen. */
export interface SamplingOptions {
  /** 0, the default, takes the likeliest token; higher is more random. */
  readonly temperature?: number;
  /** Only the k likeliest tokens. */
  readonly topK?: number;
  /** Only the likeliest tokens that together have this probability (Holtzman et al. 2020). */
  readonly topP?: number;
  /** The same seed gives the same text. */
  readonly seed?: number;
}

/** The index of the largest number; the first of equal ones. */
export function argmax(logits: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++)
    if ((logits[i] ?? Number.NEGATIVE_INFINITY) > (logits[best] ?? Number.NEGATIVE_INFINITY)) best = i;
  return best;
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

/** Chooses a token by softmax(logits / temperature) among the topK and topP likeliest; the likeliest when the temperature is 0. */
export function sample(logits: ArrayLike<number>, options: SamplingOptions, random: () => number): number {
  const temperature = options.temperature ?? 0;
  if (temperature === 0) return argmax(logits);
  const order = Array.from({ length: logits.length }, (_, i) => i).sort((i, j) => (logits[j] ?? 0) - (logits[i] ?? 0) || i - j);
  const kept = order.slice(0, options.topK ?? order.length);
  const largest = logits[kept[0] ?? 0] ?? 0;
  const weights = kept.map((id) => Math.exp(((logits[id] ?? 0) - largest) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let count = weights.length;
  if (options.topP !== undefined && options.topP < 1) {
    let sum = 0;
    count = 0;
    while (count < weights.length && sum < options.topP * total) sum += weights[count++] ?? 0;
    count = Math.max(count, 1);
  }
  let rest = random() * weights.slice(0, count).reduce((sum, weight) => sum + weight, 0);
  for (let i = 0; i < count; i++) {
    rest -= weights[i] ?? 0;
    if (rest < 0) return kept[i] ?? 0;
  }
  return kept[count - 1] ?? 0;
}

/** Throws RangeError when an option is outside its range. */
export function checkSampling({ temperature = 0, topK = 1, topP = 1 }: SamplingOptions): void {
  if (!(temperature >= 0 && Number.isFinite(temperature)))
    throw new RangeError(`generate: temperature is ${temperature}. Use 0 (greedy) or more.`);
  if (!Number.isInteger(topK) || topK < 1) throw new RangeError(`generate: topK is ${topK}. Use an integer of at least 1.`);
  if (!(topP > 0 && topP <= 1)) throw new RangeError(`generate: topP is ${topP}. Use a number above 0, up to 1.`);
}
