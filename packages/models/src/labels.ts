import { hostIntegers, ignoredLabel, type Tensor } from "@lowrank/tensor";

/** What is wrong with a label; rows and positions are counted from 0. */
export function outsideVocabulary(label: number, row: number, position: number, vocabSize: number): RangeError {
  return new RangeError(
    `Label ${label} at row ${row}, position ${position} is neither a token of the model's vocabulary of ${vocabSize} (0 to ${vocabSize - 1}) nor ${ignoredLabel}, which is not counted. Use the tokenizer that belongs to the model, and ${ignoredLabel} for padding.`,
  );
}

/**
 * Throws RangeError for a label [batch, seq] that is neither a token of the vocabulary nor -100, where the labels were made of values in
 * JavaScript. Those that a device has computed cannot be looked at before they are used.
 */
export function checkLabels(labels: Tensor, vocabSize: number): void {
  const values = hostIntegers(labels);
  if (!values) return;
  const wrong = values.findIndex((label) => label !== ignoredLabel && (label < 0 || label >= vocabSize));
  const label = values[wrong];
  const width = labels.shape[1] ?? 1;
  if (label !== undefined) throw outsideVocabulary(label, Math.floor(wrong / width), wrong % width, vocabSize);
}
