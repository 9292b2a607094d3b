import { DataError } from "./error.js";
import { type Lines, linesOf, readLines } from "./lines.js";
import type { DataSource } from "./source.js";

/** One turn of a conversation. */
export interface ChatMessage {
  readonly role: string;
  readonly content: string;
}

/** One row of a data file; `line` is its 1-based line. */
export type Row =
  | { readonly kind: "completion"; readonly line: number; readonly prompt: string; readonly completion: string }
  | { readonly kind: "text"; readonly line: number; readonly text: string }
  | { readonly kind: "messages"; readonly line: number; readonly messages: readonly ChatMessage[] };

const forms = '{"prompt","completion"}, {"text"} or {"messages":[{"role","content"}]}';

/**
 * The rows of a JSONL text: one `{"prompt","completion"}`, `{"text"}` or `{"messages"}` object a line; blank lines are skipped.
 * Throws DataError with the file and the line when a line is not JSON or not of these forms, and when there is no row at all.
 */
export function parseRows(text: string, path: string): Row[] {
  const rows: Row[] = [];
  for (const lines of linesOf(text)) for (const row of rowsOf(lines, path)) rows.push(row);
  if (rows.length === 0) throw withoutRows(path);
  return rows;
}

/**
 * The rows of a JSONL source, one after another, as it is read: for files of any size.
 * Throws as `parseRows` does, and DataError for a line that is not UTF-8 or longer than 512 MB.
 */
export async function* readRows(source: DataSource, path: string): AsyncGenerator<Row> {
  let isEmpty = true;
  for await (const lines of readLines(source, path)) {
    for (const row of rowsOf(lines, path)) {
      isEmpty = false;
      yield row;
    }
  }
  if (isEmpty) throw withoutRows(path);
}

/** The rows of some lines. */
export function* rowsOf({ first, texts }: Lines, path: string): Generator<Row> {
  for (const [i, text] of texts.entries()) {
    const trimmed = text.trim();
    if (trimmed !== "") yield rowOf(parseLine(trimmed, path, first + i), path, first + i);
  }
}

export function withoutRows(path: string): DataError {
  return new DataError(`${path}: the file holds no row. Write one JSON object a line: ${forms}.`, path, 0);
}

function parseLine(line: string, path: string, number: number): unknown {
  try {
    return JSON.parse(line);
  } catch (error) {
    const reason = error instanceof Error ? error.message.replace(/\s+/g, " ") : String(error);
    throw new DataError(
      `${path}:${number}: not JSON (${reason}). Write one whole JSON object on every line, with line breaks as \\n.`,
      path,
      number,
    );
  }
}

function rowOf(value: unknown, path: string, line: number): Row {
  const fail = (fact: string, remedy: string): never => {
    throw new DataError(`${path}:${line}: ${fact}. ${remedy}`, path, line);
  };
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return fail(`the line holds ${Array.isArray(value) ? "an array" : JSON.stringify(value)} where an object belongs`, `Write ${forms}.`);
  }
  const fields = value as Readonly<Record<string, unknown>>;
  const text = (name: string): string => {
    const field = fields[name];
    if (typeof field === "string") return field;
    return fail(field === undefined ? `"${name}" is missing` : `"${name}" is not a string`, `A row is ${forms}.`);
  };
  if ("prompt" in fields || "completion" in fields)
    return { kind: "completion", line, prompt: text("prompt"), completion: text("completion") };
  if ("messages" in fields) {
    const { messages } = fields;
    const isMessage = (m: unknown): m is ChatMessage =>
      typeof m === "object" && m !== null && "role" in m && "content" in m && typeof m.role === "string" && typeof m.content === "string";
    if (!Array.isArray(messages) || messages.length === 0 || !messages.every(isMessage)) {
      return fail(
        '"messages" is not a list of {"role","content"} strings',
        'Write [{"role":"user","content":"…"},{"role":"assistant","content":"…"}].',
      );
    }
    return { kind: "messages", line, messages };
  }
  if ("text" in fields) return { kind: "text", line, text: text("text") };
  const found = Object.keys(fields);
  return fail(
    `the row has ${found.length === 0 ? "no fields" : `the fields ${found.map((name) => `"${name}"`).join(", ")}`}`,
    `Rename them: a row is ${forms}.`,
  );
}
