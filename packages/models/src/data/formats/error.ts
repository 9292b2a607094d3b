/** A data file that cannot be trained on; `path` and `line` (1-based, 0 for the whole file) name the place. */
export class DataError extends Error {
  override readonly name = "DataError";
  constructor(
    message: string,
    readonly path: string,
    readonly line: number,
  ) {
    super(message);
  }
}
