export {
  type Batch,
  type BatchLayout,
  BatchSequence,
  type BatchShape,
  bucketLength,
  collate,
  evaluationBatches,
  packedLength,
  shuffledOrder,
} from "./batches.js";
export {
  type DataSet,
  type Example,
  encodeCompletion,
  encodeRow,
  encodeRows,
  ignoredLabel,
  type LengthLimits,
  type RowTokenizer,
} from "./encode.js";
export { DataError } from "./error.js";
export { type ChatMessage, parseRows, type Row } from "./rows.js";
