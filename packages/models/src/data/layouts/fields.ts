import { parseLossless } from "../../lossless.js";
import { DataError } from "../formats/error.js";
import { Bytes } from "../formats/records.js";

type Json = Readonly<Record<string, unknown>>;

/** The forms of rows that an error proposes. */
export const forms = '{"prompt","completion"}, {"text"} or {"messages":[{"role","content"}]}';

/** The fields of one row, and which of them were read. */
export class Fields {
  readonly #read = new Set<string>();

  constructor(
    readonly values: Json,
    readonly path: string,
    readonly line: number,
    /** Further fields of the same row that nobody reads. */
    readonly others: readonly string[] = [],
  ) {}

  /** Throws DataError unless the value is an object. */
  static of(value: unknown, path: string, line: number): Fields {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return new Fields(value as Json, path, line);
    const found = Array.isArray(value) ? "an array" : JSON.stringify(value);
    throw new DataError(`${path}:${line}: the line holds ${found} where an object belongs. Write ${forms}.`, path, line);
  }

  /** Fields of another name for the same row; `others` are those of it that none stands for. */
  renamed(values: Json, others: readonly string[]): Fields {
    return new Fields(values, this.path, this.line, others);
  }

  has(...names: readonly string[]): boolean {
    return names.every((name) => (this.values[name] ?? null) !== null);
  }

  /** Fields that are there and that nobody has read. */
  unread(): string[] {
    return [...Object.keys(this.values).filter((name) => !this.#read.has(name) && this.has(name)), ...this.others];
  }

  value(name: string): unknown {
    this.#read.add(name);
    return this.values[name];
  }

  /** Throws DataError unless the field is a text. */
  text(name: string): string {
    const value = this.value(name);
    if (typeof value === "string") return value;
    if (value instanceof Bytes) this.fail(`"${name}" holds bytes that are not UTF-8 text`, "Write the column again, from text.");
    this.fail(value === undefined ? `"${name}" is missing` : `"${name}" is not a string`, `A row is ${forms}.`);
  }

  /** A text, or "" where the field is absent or null. Throws DataError for anything else. */
  optionalText(name: string): string {
    return this.has(name) ? this.text(name) : "";
  }

  /** A list, which columns of texts hold as JSON; undefined where the field is absent, null or empty. Throws DataError for anything else. */
  list(name: string): readonly unknown[] | undefined {
    const value = this.value(name) ?? null;
    const list = typeof value === "string" ? (value.trim() === "" ? null : this.#json(value, name)) : value;
    if (list === null) return undefined;
    if (!Array.isArray(list)) this.fail(`"${name}" is not a list`, "Write it in brackets: [ … ].");
    return list.length === 0 ? undefined : list;
  }

  /** An object, likewise. */
  object(name: string): Json | undefined {
    const value = this.value(name) ?? null;
    const object = typeof value === "string" ? (value.trim() === "" ? null : this.#json(value, name)) : value;
    if (object === null) return undefined;
    if (typeof object !== "object" || Array.isArray(object)) this.fail(`"${name}" is not an object`, "Write it in braces: { … }.");
    return object as Json;
  }

  fail(fact: string, remedy: string): never {
    throw new DataError(`${this.path}:${this.line}: ${fact}. ${remedy}`, this.path, this.line);
  }

  #json(text: string, name: string): unknown {
    try {
      return parseLossless(text);
    } catch {
      this.fail(`"${name}" is a text that is not JSON`, "Write a list or an object, or its JSON.");
    }
  }
}
