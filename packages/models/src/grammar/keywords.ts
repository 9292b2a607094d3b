import { shown } from "../schema.js";
import { SchemaError } from "./error.js";
import type { Expression } from "./expression.js";

/** The keywords of a schema. */
export type Schema = Readonly<Record<string, unknown>>;

export const numeric = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"] as const;

/** The keywords of each type. */
export const keywords: Readonly<Record<string, readonly string[]>> = {
  object: ["properties", "required", "additionalProperties"],
  array: ["items", "prefixItems", "minItems", "maxItems"],
  string: ["minLength", "maxLength", "format"],
  number: numeric,
  integer: numeric,
  boolean: [],
  null: [],
};

/** Where a schema stands, and how what it refers to is found. */
export interface Place {
  readonly path: string;
  readonly convert: (schema: unknown, path: string) => Expression;
  readonly resolve: (pointer: string, path: string) => unknown;
}

/** A whole number of at least 0, or null where there is none. */
export function countIn(schema: Schema, name: string, path: string): number | null {
  const found = schema[name];
  if (found === undefined) return null;
  if (typeof found !== "number" || !Number.isInteger(found) || found < 0)
    throw new SchemaError(path, `has ${shown(found)} as "${name}"`, "Write a whole number of at least 0.");
  return found;
}

/** A number, whole ones within ±2⁵³, or null where there is none. */
export function numberIn(schema: Schema, name: string, path: string): number | null {
  const found = schema[name];
  if (found === undefined) return null;
  if (typeof found !== "number" || !Number.isFinite(found) || Math.abs(found) > Number.MAX_SAFE_INTEGER)
    throw new SchemaError(path, `has ${shown(found)} as "${name}"`, "Write a number within ±2^53.");
  // −0 is 0.
  return found + 0;
}

/** A list that is not empty. */
export function listIn(schema: Schema, name: string, path: string): readonly unknown[] {
  const found = schema[name];
  if (!Array.isArray(found) || found.length === 0) throw new SchemaError(path, `has ${shown(found)} as "${name}"`, "Write a list.");
  return found;
}

/** The types that are named; null where none is. */
export function typesOf(schema: Schema, path: string): readonly string[] | null {
  const { type } = schema;
  if (type === undefined) return null;
  const types = Array.isArray(type) ? type : [type];
  const wrong = types.find((name) => typeof name !== "string" || !Object.hasOwn(keywords, name));
  if (wrong !== undefined || types.length === 0)
    throw new SchemaError(path, `has ${shown(type)} as "type"`, `Use ${Object.keys(keywords).join(", ")}, or a list of them.`);
  return types as string[];
}

/** The types that a schema without one of the keywords that stand alone takes: those that it names, or has keywords of. */
export function typesBy(schema: Schema, path: string): readonly string[] | null {
  const own = Object.keys(keywords).filter((type) => type !== "integer" && keywords[type]?.some((name) => schema[name] !== undefined));
  return typesOf(schema, path) ?? (own.length > 0 ? own : null);
}
