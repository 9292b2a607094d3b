/** A chat template that cannot be rendered: it is not one, it refuses the messages, or it asks for too much. */
export class TokenizerError extends Error {
  override readonly name = "TokenizerError";
}
