import { type Example, ignoredLabel } from "./encode.js";

/** Rows of one shape: `ids` and `labels` are row-major [rowCount, length]; padding is on the right, with label -100. */
export interface Batch {
  readonly ids: Int32Array;
  readonly labels: Int32Array;
  readonly rowCount: number;
  readonly length: number;
  /** Tokens that the loss counts. */
  readonly learnedTokenCount: number;
  /** Tokens without padding. */
  readonly tokenCount: number;
}

/** Lengths are rounded up to one of few, so that a run needs few plans: multiples of 32, above 256 of 64. Never beyond `limit`. */
export function bucketLength(length: number, limit: number): number {
  const step = length <= 256 ? 32 : 64;
  return Math.max(2, Math.min(Math.ceil(length / step) * step, limit));
}

/**
 * Puts examples together: padded on the right to a common bucket, which causal attention never looks at. `rowCount` above the examples'
 * number adds rows from which nothing is learned, so that a last, smaller batch has the shape of the others.
 */
export function collate(examples: readonly Example[], limit: number, rowCount: number = examples.length): Batch {
  const length = bucketLength(Math.max(...examples.map(({ ids }) => ids.length)), limit);
  const ids = new Int32Array(rowCount * length);
  const labels = new Int32Array(rowCount * length).fill(ignoredLabel);
  let learnedTokenCount = 0;
  let tokenCount = 0;
  for (const [row, example] of examples.entries()) {
    ids.set(example.ids, row * length);
    labels.set(example.labels, row * length);
    tokenCount += example.ids.length;
    for (let i = 1; i < example.labels.length; i++) if (example.labels[i] !== ignoredLabel) learnedTokenCount++;
  }
  return { ids, labels, rowCount, length, learnedTokenCount, tokenCount };
}

/** Mulberry32: seeded numbers in [0, 1). */
function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** 0 … count-1 in the order of one epoch (Fisher–Yates); a function of seed and epoch alone. */
export function shuffledOrder(count: number, seed: number, epoch: number): Uint32Array {
  const random = randomNumbers(Math.imul(seed, 0x9e3779b1) ^ Math.imul(epoch + 1, 0x85ebca6b));
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    const moved = order[i] as number; // i < count
    order[i] = order[j] as number; // j ≤ i
    order[j] = moved;
  }
  return order;
}

/**
 * The endless, seeded sequence of batches of a data set: every epoch in an order of its own, batches run across the epochs' border.
 * `batch(n)` is a function of seed and n alone, so a resumed run goes on where it was.
 */
export class BatchSequence {
  #epoch = -1;
  #order: Uint32Array = new Uint32Array();

  constructor(
    readonly examples: readonly Example[],
    readonly options: { readonly batchSize: number; readonly seed: number; readonly lengthLimit: number },
  ) {}

  /** Batches in one pass over the data, rounded up. */
  get batchesPerEpoch(): number {
    return Math.ceil(this.examples.length / this.options.batchSize);
  }

  /** The n-th batch of the run, from 0. */
  batch(n: number): Batch {
    const { batchSize, lengthLimit } = this.options;
    const rows = Array.from({ length: batchSize }, (_, i) => this.#example(n * batchSize + i));
    return collate(rows, lengthLimit);
  }

  #example(position: number): Example {
    const count = this.examples.length;
    const epoch = Math.floor(position / count);
    if (epoch !== this.#epoch) {
      this.#order = shuffledOrder(count, this.options.seed, epoch);
      this.#epoch = epoch;
    }
    return this.examples[this.#order[position % count] as number] as Example; // both are below count
  }
}
