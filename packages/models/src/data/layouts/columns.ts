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

/** The fields of a row under the names that rows have. Throws DataError where a column is missing. */
export function mapped(fields: Fields, { map = {}, format }: Columns): Fields {
  const values: Record<string, unknown> = {};
  for (const [field, column] of Object.entries(map)) values[field] = columnOf(fields, column);
  if (format !== undefined) {
    const filled = format.replace(/\{\{|\}\}|\{([^{}]*)\}/g, (match: string, column: string | undefined) =>
      column === undefined ? match.charAt(0) : textOf(columnOf(fields, column), column, fields),
    );
    values[map["completion"] === undefined ? "text" : "prompt"] = filled;
  }
  return fields.renamed(values);
}

function columnOf(fields: Fields, column: string): unknown {
  let value: unknown = fields.values;
  for (const part of column in fields.values ? [column] : column.split(".")) {
    const isInside = typeof value === "object" && value !== null && Object.hasOwn(value, part);
    value = isInside ? (value as Readonly<Record<string, unknown>>)[part] : undefined;
  }
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
