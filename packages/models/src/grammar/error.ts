/** A JSON schema that is none, or asks for what is not known here. */
export class SchemaError extends Error {
  override readonly name = "SchemaError";

  constructor(
    /** Where in the schema, as a JSON pointer behind "#". */
    readonly place: string,
    fact: string,
    remedy: string,
  ) {
    super(`The schema at ${place} ${fact}. ${remedy}`);
  }
}
