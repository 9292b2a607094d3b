export {
  type Batch,
  type BatchLayout,
  BatchSequence,
  type BatchShape,
  bucketLength,
  collate,
  packedLength,
} from "./batches.js";
export { type DataSet, encodeRows, evenlySpread, type LengthLimits, type ReadDataSet, type ReadOptions, readExamples } from "./data-set.js";
export { examplesDigest } from "./digest.js";
export { type Example, encodeCompletion, encodeRow, ignoredLabel, type RowTokenizer } from "./encode.js";
export { DataError } from "./error.js";
export { evaluationBatches, evaluationSequence } from "./evaluation.js";
export { type Examples, ExampleTable, longestLength, selectExamples, tokenCountAt } from "./examples.js";
export { type Lines, readLines } from "./lines.js";
export { shuffledOrder } from "./order.js";
export { type ChatMessage, parseRows, type Row, readRows, rowsOf } from "./rows.js";
export { type DataSource, rereadable } from "./source.js";
