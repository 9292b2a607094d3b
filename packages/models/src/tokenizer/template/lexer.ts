/** A piece of a template: text between tags, the borders of tags, or a word of an expression. */
export interface Token {
  readonly type:
    | "data"
    | "variable_begin"
    | "variable_end"
    | "block_begin"
    | "block_end"
    | "name"
    | "string"
    | "number"
    | "operator"
    | "eof";
  /** The text; of a string what it means. */
  readonly value: string;
  readonly line: number;
}

/** A template that is not valid Jinja. */
export class TemplateSyntaxError extends Error {
  constructor(message: string, line: number) {
    super(`${message}, line ${line}`);
  }
}

/** White space as Python's `\s` and str.isspace have it. */
export const whiteSpace = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";

const space = new RegExp(`[${whiteSpace}]+`, "y");
const onlySpace = new RegExp(`^[${whiteSpace}]+$`);
const trailingSpace = new RegExp(`[${whiteSpace}]$`);
const float = /(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?e[+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/iy;
const integer = /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy;
const name = /[A-Za-z_\u0080-\u{10ffff}][\w\u0080-\u{10ffff}]*/uy;
const string = /'(?:[^'\\]*(?:\\[\s\S][^'\\]*)*)'|"(?:[^"\\]*(?:\\[\s\S][^"\\]*)*)"/y;
const operator = /\/\/|\*\*|==|!=|>=|<=|[+\-/*%~[\](){}>=<.:|,;]/y;
const closing: Readonly<Record<string, string>> = { "(": ")", "[": "]", "{": "}" };
const raw = new RegExp(`\\{%[-+]?[${whiteSpace}]*raw[${whiteSpace}]*(-%\\}[${whiteSpace}]*|%\\})`, "y");
const endRaw = new RegExp(`\\{%([-+]?)[${whiteSpace}]*endraw[${whiteSpace}]*(?:\\+%\\}|-%\\}[${whiteSpace}]*|%\\}\\n?)`, "g");

/**
 * The tokens of a template as jinja2 sees them with `trim_blocks` and `lstrip_blocks`, which transformers sets: a line break after a block
 * goes, and so does white space before it on its line. Throws TemplateSyntaxError.
 */
export function tokenize(text: string): Token[] {
  const source = text.replace(/\r\n?/g, "\n").replace(/\n$/, "");
  return new Lexer(source).run();
}

class Lexer {
  readonly #tokens: Token[] = [];
  #at = 0;
  #line = 1;
  #lineStarts = true;

  constructor(readonly source: string) {}

  run(): Token[] {
    const { source } = this;
    const tag = /\{[{%#]/g;
    while (this.#at < source.length) {
      tag.lastIndex = this.#at;
      const start = tag.exec(source)?.index;
      if (start === undefined) {
        this.#push("data", source.slice(this.#at));
        break;
      }
      const kind = source[start + 1];
      raw.lastIndex = start;
      const rawTag = kind === "%" ? raw.exec(source) : null;
      this.#data(start, kind !== "{");
      if (rawTag) this.#raw(start + rawTag[0].length);
      else if (kind === "#") this.#comment();
      else this.#expression(kind === "{" ? "variable" : "block");
    }
    this.#push("eof", "");
    return this.#tokens;
  }

  /** The text before a tag, whose first sign says what white space before it goes. */
  #data(start: number, isBlock: boolean): void {
    const text = this.source.slice(this.#at, start);
    const sign = this.source[start + 2];
    this.#at = start + 2 + (sign === "-" || sign === "+" ? 1 : 0);
    let kept = text;
    if (sign === "-") kept = trimEnd(text);
    else if (sign !== "+" && isBlock) {
      const line = text.lastIndexOf("\n") + 1;
      if ((line > 0 || this.#lineStarts) && onlySpace.test(text.slice(line))) kept = text.slice(0, line);
    }
    this.#push("data", kept);
    this.#line += lines(text) - lines(kept);
  }

  #raw(from: number): void {
    endRaw.lastIndex = from;
    const end = endRaw.exec(this.source);
    if (!end) throw new TemplateSyntaxError("a raw block has no end", this.#line);
    let text = this.source.slice(from, end.index);
    if (end[1] === "-") text = trimEnd(text);
    else if (end[1] !== "+") {
      const line = text.lastIndexOf("\n") + 1;
      if (line > 0 && onlySpace.test(text.slice(line))) text = text.slice(0, line);
    }
    this.#push("data", text);
    this.#moveTo(end.index + end[0].length);
  }

  #comment(): void {
    const end = this.source.indexOf("#}", this.#at);
    if (end < 0) throw new TemplateSyntaxError("a comment has no end", this.#line);
    const sign = end > this.#at || this.source[end - 1] === "-" ? this.source[end - 1] : "";
    this.#moveTo(this.#afterTag(end + 2, sign, true));
  }

  #expression(kind: "variable" | "block"): void {
    this.#push(`${kind}_begin`, "");
    const { source } = this;
    const close = kind === "variable" ? "}}" : "%}";
    const open: string[] = [];
    for (;;) {
      this.#skip(space);
      if (this.#at >= source.length) throw new TemplateSyntaxError("a tag has no end", this.#line);
      if (open.length === 0) {
        const sign = source[this.#at] === "-" || (kind === "block" && source[this.#at] === "+") ? source[this.#at] : "";
        const end = this.#at + (sign ? 1 : 0);
        if (source.startsWith(close, end)) {
          this.#push(`${kind}_end`, "");
          this.#moveTo(this.#afterTag(end + 2, sign, kind === "block"));
          return;
        }
      }
      const token = this.#word();
      const shut = closing[token];
      if (shut) open.push(shut);
      else if (/^[)\]}]$/.test(token) && open.pop() !== token) throw new TemplateSyntaxError(`"${token}" closes nothing`, this.#line);
    }
  }

  /** One word of an expression; operators are given back, other words as nothing. */
  #word(): string {
    const number = this.#match(float) ?? this.#match(integer);
    if (number !== null) this.#push("number", number);
    else {
      const word = this.#match(name);
      if (word !== null) this.#push("name", word);
      else {
        const literal = this.#match(string);
        if (literal !== null) {
          this.#push("string", literalOf(literal.slice(1, -1), this.#line));
          this.#line += lines(literal);
        } else {
          const sign = this.#match(operator);
          if (sign === null) throw new TemplateSyntaxError(`unexpected "${this.source[this.#at] ?? ""}"`, this.#line);
          this.#push("operator", sign);
          return sign;
        }
      }
    }
    return "";
  }

  /** Where text goes on after a tag: "-" takes the white space, and a block without "+" the line break. */
  #afterTag(end: number, sign: string | undefined, isBlock: boolean): number {
    if (sign === "-") {
      space.lastIndex = end;
      const found = space.exec(this.source);
      return found ? end + found[0].length : end;
    }
    return isBlock && sign !== "+" && this.source[end] === "\n" ? end + 1 : end;
  }

  #match(pattern: RegExp): string | null {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.source)?.[0] ?? null;
    if (found !== null) this.#at += found.length;
    return found;
  }

  #skip(pattern: RegExp): void {
    this.#line += lines(this.#match(pattern) ?? "");
  }

  #moveTo(end: number): void {
    this.#line += lines(this.source.slice(this.#at, end));
    this.#lineStarts = this.source[end - 1] === "\n";
    this.#at = end;
  }

  #push(type: Token["type"], value: string): void {
    if (type === "data" && value === "") return;
    this.#tokens.push({ type, value, line: this.#line });
    if (type === "data") this.#line += lines(value);
  }
}

function lines(text: string): number {
  let count = 0;
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) count++;
  return count;
}

function trimEnd(text: string): string {
  let end = text.length;
  while (end > 0 && trailingSpace.test(text[end - 1] as string)) end--;
  return text.slice(0, end);
}

const escapes: Readonly<Record<string, string>> = {
  "\n": "",
  "\\": "\\",
  "'": "'",
  '"': '"',
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};

/** A literal as Python's "unicode-escape" reads it. */
function literalOf(text: string, line: number): string {
  return text.replace(
    /\\(?:([0-7]{1,3})|x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([\s\S]))/g,
    (whole, octal?: string, byte?: string, short?: string, long?: string, letter?: string) => {
      if (octal !== undefined) return String.fromCharCode(Number.parseInt(octal, 8));
      const hex = byte ?? short ?? long;
      if (hex !== undefined) {
        const code = Number.parseInt(hex, 16);
        if (code <= 0x10ffff) return String.fromCodePoint(code);
      }
      if (letter !== undefined && !"xuUN".includes(letter)) return escapes[letter] ?? whole;
      throw new TemplateSyntaxError(`the text has the escape "${whole}", which is not valid`, line);
    },
  );
}
