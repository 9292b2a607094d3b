/** An adapter that cannot be made, loaded, merged or saved as asked; `names` holds the modules, parameters or options concerned. */
export class AdapterError extends Error {
  override readonly name = "AdapterError";
  constructor(
    message: string,
    readonly names: readonly string[] = [],
  ) {
    super(message);
  }
}

/** A method that has no place on this model by itself: BitFit without biases, a prefix without keys, (IA)³ where no targets are known. */
export class NotApplicableError extends AdapterError {}

/** Names as errors print them: at most `limit`, then how many more. */
export function listed(names: readonly string[], limit = 12): string {
  const shown = names.slice(0, limit).join(", ");
  return names.length > limit ? `${shown}, … (${names.length - limit} more)` : shown;
}
