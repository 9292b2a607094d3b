/** A number of a JSON text that JavaScript's number would change: 1.0, 1e3, or an integer beyond 2^53. */
export class JsonNumber {
  constructor(readonly text: string) {}

  valueOf(): number {
    return Number(this.text);
  }

  toString(): string {
    return this.text;
  }

  toJSON(): number {
    return Number(this.text);
  }
}

/** The names of an object's fields in the order of its text, where JavaScript keeps another: names that are numbers go first there. */
const orders = new WeakMap<object, readonly string[]>();

/** The fields of an object in the order in which its JSON text has them. */
export function fieldsOf(object: object): readonly (readonly [string, unknown])[] {
  const order = orders.get(object);
  return order ? order.map((name) => [name, (object as Readonly<Record<string, unknown>>)[name]] as const) : Object.entries(object);
}

/** Objects and arrays within one another. Python's reader goes about as deep. */
const deepest = 900;

/** What JSON.parse loses: numbers with a point, an exponent or many digits, and names that are numbers. */
const lossy = /\d[.eE]|\d{16}|-0|"\d+"\s*:/;

/**
 * The value of a JSON text as JSON.parse gives it, except that a number which JavaScript would change is a `JsonNumber`, and that `fieldsOf`
 * knows the order of every object's fields. Throws SyntaxError as JSON.parse does, and where it is more than 900 levels deep.
 */
export function parseLossless(text: string): unknown {
  const value: unknown = JSON.parse(text);
  return lossy.test(text) ? new Reader(text).read() : value;
}

/** Reads a text that is known to be JSON. */
class Reader {
  #at = 0;
  #depth = 0;

  constructor(readonly text: string) {}

  read(): unknown {
    this.#skipSpace();
    const sign = this.text[this.#at];
    let value: unknown;
    if (sign === "{") value = this.#nested(() => this.#object());
    else if (sign === "[") value = this.#nested(() => this.#array());
    else if (sign === '"') value = this.#string();
    else value = this.#word();
    this.#skipSpace();
    return value;
  }

  #nested<T>(read: () => T): T {
    if (++this.#depth > deepest) throw new SyntaxError(`more than ${deepest} levels of objects and arrays`);
    this.#at++;
    this.#skipSpace();
    const value = read();
    this.#at++;
    this.#depth--;
    return value;
  }

  #array(): unknown[] {
    const items: unknown[] = [];
    while (this.text[this.#at] !== "]") {
      items.push(this.read());
      if (this.text[this.#at] === ",") this.#at++;
    }
    return items;
  }

  #object(): object {
    const fields = new Map<string, unknown>();
    let hasNumbers = false;
    while (this.text[this.#at] !== "}") {
      this.#skipSpace();
      const name = this.#string();
      this.#skipSpace();
      this.#at++;
      fields.set(name, this.read());
      if (/^\d/.test(name)) hasNumbers = true;
      if (this.text[this.#at] === ",") this.#at++;
    }
    const object = Object.fromEntries(fields);
    if (hasNumbers) orders.set(object, [...fields.keys()]);
    return object;
  }

  #string(): string {
    const start = this.#at;
    let end = start;
    let backslashes: number;
    do {
      end = this.text.indexOf('"', end + 1);
      backslashes = 0;
      while (this.text[end - 1 - backslashes] === "\\") backslashes++;
    } while (backslashes % 2 === 1);
    this.#at = end + 1;
    return JSON.parse(this.text.slice(start, this.#at)) as string;
  }

  #word(): unknown {
    const word = /[^\s,\]}]+/y;
    word.lastIndex = this.#at;
    const found = word.exec(this.text)?.[0] ?? "";
    this.#at += found.length;
    const value: unknown = JSON.parse(found);
    if (typeof value !== "number") return value;
    const isKept = /[.eE]/.test(found) ? !Number.isInteger(value) && Number.isFinite(value) : Number.isSafeInteger(value) && found !== "-0";
    return isKept ? value : new JsonNumber(found);
  }

  #skipSpace(): void {
    for (;;) {
      const unit = this.text.charCodeAt(this.#at);
      if (unit !== 0x20 && unit !== 0x0a && unit !== 0x0d && unit !== 0x09) return;
      this.#at++;
    }
  }
}

/**
 * The JSON text of a value as JSON.stringify writes it on one line, except that what `parseLossless` keeps is kept: numbers as they were written,
 * integers of any size, and the order of fields.
 */
export function stringifyLossless(value: unknown): string {
  if (value instanceof JsonNumber) return value.text;
  if (typeof value === "bigint") return String(value);
  if (Array.isArray(value)) return `[${value.map((item: unknown) => stringifyLossless(item)).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  const fields = fieldsOf(value).filter(([, item]) => item !== undefined);
  return `{${fields.map(([name, item]) => `${JSON.stringify(name)}:${stringifyLossless(item)}`).join(",")}}`;
}
