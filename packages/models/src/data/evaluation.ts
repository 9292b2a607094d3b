import { type Batch, type BatchShape, collate, pack, packedLength, tokensOf } from "./batches.js";
import type { Example } from "./example.js";
import { type Examples, exampleAt, longestLength } from "./examples.js";
import { lengthOrder } from "./order.js";

/**
 * Held-out rows in batches of few shapes, each made when it comes to it, and anew with every iteration. Padded: sorted by length,
 * `batchSize` rows each, the last batch filled up with empty rows. Packed: as many rows as fit the length that `batchSize` rows have at
 * the mean, one shape for all.
 */
export function evaluationSequence(examples: Examples, batchSize: number, shape: BatchShape): Iterable<Batch> {
  const batches = shape.layout === "packed" ? packedBatches : paddedBatches;
  return { [Symbol.iterator]: () => batches(examples, batchSize, shape) };
}

/** The batches of `evaluationSequence`, all at once. */
export function evaluationBatches(examples: Examples, batchSize: number, shape: BatchShape): Batch[] {
  return [...evaluationSequence(examples, batchSize, shape)];
}

function* paddedBatches(examples: Examples, batchSize: number, shape: BatchShape): Generator<Batch> {
  const sorted = lengthOrder(examples);
  const rowCount = Math.min(batchSize, sorted.length);
  for (let start = 0; start < sorted.length; start += batchSize) {
    const rows = Array.from(sorted.subarray(start, start + batchSize), (index) => exampleAt(examples, index));
    yield collate(rows, shape, { rowCount });
  }
}

function* packedBatches(examples: Examples, batchSize: number, { lengthLimit }: BatchShape): Generator<Batch> {
  const rowCount = Math.min(batchSize, examples.length);
  const mean = tokensOf(examples) / examples.length;
  const length = packedLength(Math.max(mean * rowCount, longestLength(examples)), rowCount * lengthLimit);
  let rows: Example[] = [];
  let tokenCount = 0;
  for (const example of examples) {
    if (tokenCount + example.ids.length > length) {
      yield pack(rows, lengthLimit, length);
      rows = [];
      tokenCount = 0;
    }
    rows.push(example);
    tokenCount += example.ids.length;
  }
  if (rows.length > 0) yield pack(rows, lengthLimit, length);
}
