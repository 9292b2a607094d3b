export {
  type Batch,
  type BatchLayout,
  BatchSequence,
  type BatchShape,
  bucketLength,
  collate,
  packedLength,
} from "./batches.js";
export type { TrainedTurns } from "./conversation.js";
export { type DataNotes, type DataSet, encodeRows, evenlySpread, type ReadDataSet, type ReadOptions, readExamples } from "./data-set.js";
export { examplesDigest } from "./digest.js";
export { EncodingNotes, encodeCompletion, encodePrompt, encodeRow } from "./encode.js";
export { evaluationBatches, evaluationSequence } from "./evaluation.js";
export { type Example, ignoredLabel } from "./example.js";
export { type Examples, ExampleTable, longestLength, selectExamples, tokenCountAt } from "./examples.js";
export { DataError } from "./formats/error.js";
export { isDataFile, readRecords } from "./formats/format.js";
export { type Lines, readLines } from "./formats/lines.js";
export type { DataRecord, Records } from "./formats/records.js";
export { type DataSource, rereadable } from "./formats/source.js";
export { utf16Of } from "./formats/text.js";
export { type Columns, formatColumns } from "./layouts/columns.js";
export { type RowOptions, RowReader } from "./layouts/reader.js";
export type { Conversation, Row } from "./layouts/row.js";
export { mixDataSets, type WeightedDataSet } from "./mix.js";
export { shuffledOrder } from "./order.js";
export {
  type Preview,
  type PreviewOptions,
  type PreviewPart,
  type PreviewRow,
  type PreviewTokenizer,
  previewData,
  previewRow,
} from "./preview.js";
export type { LengthLimits } from "./row-encoder.js";
export type { Encoding, RowTokenizer } from "./row-tokenizer.js";
export { parseRows, readRows } from "./rows.js";
export { foldedKey, foldedText, splitDataSet } from "./split.js";
