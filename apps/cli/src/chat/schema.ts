import { type CausalLM, checkSchema, SchemaConstraint, type Tokenizer } from "@lowrank/models";
import { endingOf } from "./ending.js";
import { jsonFile } from "./json-file.js";

/** A schema that answers are held to, once it is known what answers. */
export type Held = (model: CausalLM, tokenizer: Tokenizer) => SchemaConstraint | null;

/** Reads and checks the schema of a file, before anything is loaded for it. Rejects with UsageError or SchemaError. */
export async function heldTo(path: string | undefined): Promise<Held> {
  if (path === undefined) return () => null;
  const schema = await jsonFile("--schema", path, { remedy: "Write a JSON schema." });
  checkSchema(schema);
  return (model, tokenizer) => new SchemaConstraint(tokenizer, schema, { stopTokens: endingOf(model, tokenizer).stops });
}
