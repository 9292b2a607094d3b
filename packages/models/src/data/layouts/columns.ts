import { JsonNumber } from "../../lossless.js";
import { DataError } from "../formats/error.js";
import type { Fields } from "./fields.js";

/** Which columns of a file stand for which fields of a row. */
export interface Columns {
  /** By the field's name that of the column; `a.b` and `a.0` lead into objects and lists. */
  readonly map?: Readonly<Record<string, string>>;
  /** A text with columns in braces: the prompt where `map` names a completion, else the whole text. `{{` and `}}` are braces. */
  readonly format?: string;
}

/** Braces of a format: two of a kind are one of the text, others hold a column's name. */
const braces = /\{\{|\}\}|\{([^{}]*)\}/g;

/** The columns that a format names. */
export function formatColumns(format: string): string[] {
  return [...format.matchAll(braces)].flatMap(([, column]) => column ?? []);
}

/** The fields of a row under the names that rows have. Throws DataError where a column is missing. */
export function mapped(fields: Fields, { map = {}, format }: Columns): Fields {
  const values: Record<string, unknown> = {};
  for (const [field, column] of Object.entries(map)) values[field] = columnOf(fields, column);
  if (format !== undefined) {
    const filled = format.replace(braces, (match: string, column: string | undefined) =>
      column === undefined ? match.charAt(0) : textOf(columnOf(fields, column), column, fields),
    );
    values[map["completion"] === undefined ? "text" : "prompt"] = filled;
  }
  const used = new Set([...Object.values(map), ...formatColumns(format ?? "")].map((column) => placeOf(fields, column)[0]));
  return fields.renamed(
    values,
    Object.keys(fields.values).filter((name) => !used.has(name) && fields.has(name)),
  );
}

/** Whether a row has all columns that are named. */
export function hasColumns(fields: Fields, { map = {}, format = "" }: Columns): boolean {
  return [...Object.values(map), ...formatColumns(format)].every((column) => valueAt(fields, column) !== undefined);
}

/** The names that lead to a column: its own, or one inside the other. */
function placeOf(fields: Fields, column: string): readonly string[] {
  return Object.hasOwn(fields.values, column) ? [column] : column.split(".");
}

function valueAt(fields: Fields, column: string): unknown {
  let value: unknown = fields.values;
  for (const part of placeOf(fields, column)) {
    const isInside = typeof value === "object" && value !== null && Object.hasOwn(value, part);
    value = isInside ? (value as Readonly<Record<string, unknown>>)[part] : undefined;
  }
  return value;
}

function columnOf(fields: Fields, column: string): unknown {
  const value = valueAt(fields, column);
  if (value === undefined) {
    const names = Object.keys(fields.values).map((name) => `"${name}"`);
    throw new DataError(
      `${fields.path}:${fields.line}: the row has no column "${column}". It has ${names.join(", ") || "none"}.`,
      fields.path,
      fields.line,
    );
  }
  // A number or a truth value is what it is written as.
  return value instanceof JsonNumber || typeof value === "number" || typeof value === "bigint" || typeof value === "boolean"
    ? String(value)
    : value;
}

function textOf(value: unknown, column: string, fields: Fields): string {
  if (value === null) return "";
  if (typeof value === "string") return value;
  fields.fail(`the column "${column}" is not a text`, "Name a column of texts, or a part of one: a.b, a.0.");
}
