/** The label of a position from which nothing is learned, as in PyTorch's cross-entropy. */
export const ignoredLabel = -100;

/** A row as the model sees it: `labels[i]` is `ids[i]` where it is to be predicted, else -100. */
export interface Example {
  readonly line: number;
  readonly ids: readonly number[];
  readonly labels: readonly number[];
}
