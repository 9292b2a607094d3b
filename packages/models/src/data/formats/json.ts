import { parseLossless } from "../../lossless.js";
import { DataError } from "./error.js";
import type { Lines } from "./lines.js";
import type { DataRecord, Records } from "./records.js";

/** The records of some lines, one JSON object on each; blank lines are skipped. */
export function* lineRecords({ first, texts }: Lines, path: string): Generator<DataRecord | DataError> {
  for (const [i, text] of texts.entries()) {
    const trimmed = text.trim();
    if (trimmed !== "") yield parsed(trimmed, path, first + i, "Write one whole JSON object on every line, with line breaks as \\n.");
  }
}

/** A record of JSON text, or the error that it is not JSON. */
function parsed(text: string, path: string, line: number, remedy: string): DataRecord | DataError {
  try {
    return { line, value: parseLossless(text) };
  } catch (error) {
    const reason = error instanceof Error ? error.message.replace(/\s+/g, " ") : String(error);
    return new DataError(`${path}:${line}: not JSON (${reason}). ${remedy}`, path, line);
  }
}

/** Characters of the longest value, a little less than a string of JavaScript can hold. */
const longestValue = 500e6;

const [quote, backslash, openList, closeList, openObject, closeObject, comma, newline] = [...'"\\[]{},\n'].map((c) => c.charCodeAt(0)) as [
  number,
  number,
  number,
  number,
  number,
  number,
  number,
  number,
]; // eight characters

/**
 * The records of a JSON array, or of JSON values one after another that take several lines each, read as the text comes.
 * Throws DataError where the text ends inside a value, and for what is written between values.
 */
export async function* arrayRecords(pieces: AsyncIterable<string>, path: string): AsyncGenerator<Records> {
  const scan = new ValueScan(path);
  for await (const piece of pieces) {
    const records = scan.records(piece);
    if (records.length > 0) yield records;
  }
  const last = scan.last();
  if (last.length > 0) yield last;
}

/** Finds where the values of a list begin and end, without a look at what they are. */
class ValueScan {
  /** The text of the value that is being read. */
  #text = "";
  #line = 1;
  #startLine = 1;
  /** Brackets that are open, that of the list around all values aside. */
  #depth = 0;
  #isInText = false;
  #isEscaped = false;
  #list: "not yet" | "open" | "none" | "closed" = "not yet";

  constructor(readonly path: string) {}

  /** The values that end in this piece. */
  records(piece: string): Records {
    const records: (DataRecord | DataError)[] = [];
    let start = this.#text === "" ? -1 : 0;
    const end = (at: number): void => {
      records.push(this.#record(this.#text + piece.slice(start, at)));
      this.#text = "";
      start = -1;
    };
    for (let i = 0; i < piece.length; i++) {
      const c = piece.charCodeAt(i);
      if (c === newline) this.#line++;
      if (this.#isInText) {
        if (this.#isEscaped) this.#isEscaped = false;
        else if (c === backslash) this.#isEscaped = true;
        else if (c === quote) this.#isInText = false;
        continue;
      }
      if (start < 0) {
        if (c <= 0x20 || c === comma) continue;
        if (c === openList && this.#list === "not yet") {
          this.#list = "open";
          continue;
        }
        if (c === closeList && this.#list === "open") {
          this.#list = "closed";
          continue;
        }
        if (this.#list === "closed") throw this.#fail("there is more after the list's end", "Write one JSON list, or one object a line.");
        if (this.#list === "not yet") this.#list = "none";
        start = i;
        this.#startLine = this.#line;
      }
      if (c === quote) this.#isInText = true;
      else if (c === openObject || c === openList) this.#depth++;
      else if (c === closeObject || c === closeList) {
        if (this.#depth > 0) {
          if (--this.#depth === 0) end(i + 1);
        } else {
          // The list's own end, after a number or a word; else what opens nowhere is no value.
          const isEnd = c === closeList && this.#list === "open" && (i > start || this.#text !== "");
          end(isEnd ? i-- : i + 1);
        }
      } else if (this.#depth === 0 && (c === comma || (c <= 0x20 && this.#list === "none"))) end(i);
    }
    if (start >= 0) {
      if (this.#text.length > longestValue)
        throw this.#fail(
          `the value that begins here has more than ${longestValue / 1e6} million characters`,
          "Write one row a line, or a list of rows.",
        );
      this.#text += piece.slice(start);
    }
    return records;
  }

  /** What is left at the end of the text. */
  last(): Records {
    if (this.#depth > 0 || this.#isInText)
      throw this.#fail("the text ends inside the value that begins here", "The file is cut: write or copy it again.");
    if (this.#list === "open") throw this.#fail("the text ends before the list does", "The file is cut: write or copy it again.");
    return this.#text === "" ? [] : [this.#record(this.#text)];
  }

  #record(text: string): DataRecord | DataError {
    return parsed(text, this.path, this.#startLine, "Correct the value.");
  }

  #fail(fact: string, remedy: string): DataError {
    return new DataError(`${this.path}:${this.#startLine}: ${fact}. ${remedy}`, this.path, this.#startLine);
  }
}
