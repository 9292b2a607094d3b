/**
 * Training that cannot continue: a loss that is not finite, labels that all are -100. `step` is the step it happened at, 0 before the first.
 * Where a lower learning rate helps, `lowerRate` is one to try, from the checkpoint of step `checkpointAt`, or from the start where that is null.
 */
export class TrainingError extends Error {
  override readonly name = "TrainingError";
  constructor(
    message: string,
    readonly step: number,
    readonly lowerRate: number | null = null,
    readonly checkpointAt: number | null = null,
  ) {
    super(message);
  }
}

/** A loss over held-out rows that is not finite. */
export class HeldOutLossError extends TrainingError {
  constructor(
    message: string,
    readonly loss: number,
  ) {
    super(message, 0);
  }
}
