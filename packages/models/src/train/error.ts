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

/** The error of a step at which something is not finite; `what` says what. `checkpointAt`: the step of the newest checkpoint, null where there is none. */
export function divergence(step: number, what: string, rate: number, checkpointAt: number | null): TrainingError {
  const cause =
    step <= 1
      ? "The weights themselves or the learning rate are the likely cause: check the model with `lowrank eval`, then lower --lr"
      : `A learning rate of ${rate.toPrecision(3)} is the likely cause: lower --lr, or add --warmup`;
  // The checkpoint of step 0 is the beginning.
  const keptStep = checkpointAt === 0 ? null : checkpointAt;
  const kept = keptStep === null ? "No checkpoint was written." : `The checkpoint of step ${keptStep} is kept.`;
  const lower = Number.isFinite(rate) && rate > 0 ? Number((rate / 10).toPrecision(1)) : 1e-4;
  return new TrainingError(`Step ${step}: ${what}. ${cause}. ${kept}`, step, lower, keptStep);
}
