/** Training that cannot go on: a loss that is not finite, a state that does not fit. `step` is the step it happened at, 0 before the first. */
export class TrainingError extends Error {
  override readonly name = "TrainingError";
  constructor(
    message: string,
    readonly step: number,
  ) {
    super(message);
  }
}
