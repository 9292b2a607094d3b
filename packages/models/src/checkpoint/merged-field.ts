import * as z from "zod/mini";
import { checked } from "../schema.js";

/** The field of config.json in which a merged checkpoint says which adapters its weights hold. */
export const mergedField = "lowrank_merged";

const schema = z.object({ [mergedField]: z.optional(z.array(z.string())) });

/** The key under which the metadata of a GGUF file says the same. */
export const mergedKey = "lowrank.merged";

/** Digests of the adapters that the field names. Throws CheckpointError for what is not a list of them. */
export function mergedIn(value: unknown, path: string): readonly string[] {
  return checked(schema, value === undefined ? {} : { [mergedField]: value }, path)[mergedField] ?? [];
}
