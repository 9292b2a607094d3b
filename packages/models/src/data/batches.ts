import { type Example, ignoredLabel } from "./example.js";
import { type Examples, exampleAt, longestLength, tokenCountAt } from "./examples.js";
import { shuffledOrder } from "./order.js";

/**
 * How the rows of a batch lie: `padded`, each in a row of its own, or `packed`, one behind the other in a single row, where next to nothing
 * is padding and each token has its position beside it.
 */
export type BatchLayout = "padded" | "packed";

/** Rows of one shape: `ids` and `labels` are row-major [rowCount, length]; padding is on the right, with label -100. */
export interface Batch {
  readonly ids: Int32Array;
  readonly labels: Int32Array;
  /** Of packed rows, as `ids`: each token's position within its own row. Padding has position 0. */
  readonly positions: Int32Array | null;
  /** 1 where rows are packed. */
  readonly rowCount: number;
  readonly length: number;
  /** Tokens that no row exceeds. */
  readonly rowLimit: number;
  /** Tokens that the loss counts. */
  readonly learnedTokenCount: number;
  /** Tokens without padding. */
  readonly tokenCount: number;
  /** Of each example, in their order: its line in its file. */
  readonly lines?: readonly number[];
}

/** What batches of a run have in common. */
export interface BatchShape {
  readonly layout: BatchLayout;
  /** Tokens of the longest row. */
  readonly lengthLimit: number;
}

/** What a batch has so that it is as large as others of its run, and no plan is made for it alone. */
interface BatchFilling {
  /** Padded: more rows than the examples are, from which nothing is learned. */
  readonly rowCount?: number;
  /** Packed: padding up to one of these, ascending, where one suffices. */
  readonly lengths?: readonly number[];
}

/** Lengths are rounded up to one of few, so that a run needs few plans: multiples of 32, above 256 of 64. Never beyond `limit`. */
export function bucketLength(length: number, limit: number): number {
  const step = length <= 256 ? 32 : 64;
  return Math.max(2, Math.min(Math.ceil(length / step) * step, limit));
}

/**
 * `bucketLength` of rows that are packed, whose tokens are many: multiples of an eighth of the power of two below, 32 at least, so that
 * padding is some 5 % of the whole.
 */
export function packedLength(tokenCount: number, limit: number): number {
  const step = Math.max(32, 2 ** (Math.floor(Math.log2(tokenCount)) - 3));
  return Math.max(2, Math.min(Math.ceil(tokenCount / step) * step, limit));
}

/**
 * Puts examples together as `layout` says: padded on the right to a common bucket, or packed into one row of a bucket's length. Causal
 * attention looks at no padding, and at no other row where it is told where each begins.
 */
export function collate(examples: readonly Example[], { layout, lengthLimit }: BatchShape, filling: BatchFilling = {}): Batch {
  const { rowCount = examples.length, lengths = [] } = filling;
  if (layout === "packed") {
    const tokenCount = tokensOf(examples);
    const fitting = lengths.find((length) => length >= tokenCount);
    return pack(examples, lengthLimit, fitting ?? packedLength(tokenCount, examples.length * lengthLimit));
  }
  const length = bucketLength(longestLength(examples), lengthLimit);
  const starts = examples.map((_, row) => row * length);
  return { ...laidOut(examples, starts, rowCount * length), positions: null, rowCount, length, rowLimit: lengthLimit };
}

/** Examples in one row of `length` tokens. */
export function pack(examples: readonly Example[], rowLimit: number, length: number): Batch {
  const positions = new Int32Array(length);
  const starts: number[] = [];
  let start = 0;
  for (const { ids } of examples) {
    starts.push(start);
    for (let i = 0; i < ids.length; i++) positions[start++] = i;
  }
  return { ...laidOut(examples, starts, length), positions, rowCount: 1, length, rowLimit };
}

/** Ids and labels of examples that start at some places among `size`, and how many tokens they are. */
function laidOut(
  examples: readonly Example[],
  starts: readonly number[],
  size: number,
): Pick<Batch, "ids" | "labels" | "tokenCount" | "learnedTokenCount" | "lines"> {
  const ids = new Int32Array(size);
  const labels = new Int32Array(size).fill(ignoredLabel);
  let learnedTokenCount = 0;
  for (const [row, example] of examples.entries()) {
    ids.set(example.ids, starts[row]);
    labels.set(example.labels, starts[row]);
    for (let i = 1; i < example.labels.length; i++) if (example.labels[i] !== ignoredLabel) learnedTokenCount++;
  }
  return { ids, labels, tokenCount: tokensOf(examples), learnedTokenCount, lines: examples.map(({ line }) => line) };
}

/** Tokens of all examples. */
export function tokensOf(examples: Examples): number {
  let sum = 0;
  for (let i = 0; i < examples.length; i++) sum += tokenCountAt(examples, i);
  return sum;
}

/**
 * Standard deviations above the mean at which the lengths of packed batches lie: of four, those that leave the least padding, where the sum
 * of a batch's rows is about normal. More lengths would take more plans, and these longer than the padding in a run of a few hundred steps.
 */
const spread = [-0.5, 0.3, 1.1, 2.5];

/** Lengths for packed batches of rows drawn from these: about one batch in 150 is longer. */
function usualLengths(examples: Examples, batchSize: number, lengthLimit: number): number[] {
  const mean = tokensOf(examples) / examples.length;
  let squares = 0;
  for (let i = 0; i < examples.length; i++) squares += (tokenCountAt(examples, i) - mean) ** 2;
  const variance = squares / examples.length;
  const lengths = spread.map((z) => {
    const length = Math.ceil((batchSize * mean + z * Math.sqrt(batchSize * variance)) / 16) * 16;
    return Math.max(2, Math.min(length, batchSize * lengthLimit));
  });
  return [...new Set(lengths)];
}

/**
 * The endless, seeded sequence of batches of a data set: every epoch in an order of its own, batches run across the epochs' border.
 * `batch(n)` is a function of seed and n alone, so a resumed run goes on where it was.
 */
export class BatchSequence {
  #epoch = -1;
  #order: Uint32Array = new Uint32Array();
  readonly #lengths: readonly number[];

  constructor(
    readonly examples: Examples,
    readonly options: BatchShape & { readonly batchSize: number; readonly seed: number },
  ) {
    this.#lengths = options.layout === "packed" ? usualLengths(examples, options.batchSize, options.lengthLimit) : [];
  }

  /** Batches in one pass over the data, rounded up. */
  get batchesPerEpoch(): number {
    return Math.ceil(this.examples.length / this.options.batchSize);
  }

  /** The n-th batch of the run, from 0. */
  batch(n: number): Batch {
    const { batchSize } = this.options;
    const rows = Array.from({ length: batchSize }, (_, i) => this.#example(n * batchSize + i));
    return collate(rows, this.options, { lengths: this.#lengths });
  }

  #example(position: number): Example {
    const count = this.examples.length;
    const epoch = Math.floor(position / count);
    if (epoch !== this.#epoch) {
      this.#order = shuffledOrder(count, this.options.seed, epoch);
      this.#epoch = epoch;
    }
    return exampleAt(this.examples, this.#order[position % count] as number); // below count
  }
}
