import { lengthOf, sizeOf } from "./compare.js";
import { escaped, padded } from "./format.js";
import { whiteSpace } from "./lexer.js";
import { type Charge, isInt, isList, isText, Markup, TemplateError, Tuple, textOf, typeName, Undefined, type Value } from "./values.js";

/** Arguments of a method by place; those that are not given are undefined. */
type Args = readonly (Value | undefined)[];
interface Method {
  /** Names of its parameters, where they may be given by name. */
  readonly names: readonly string[];
  readonly most: number;
  readonly run: (text: string, args: Args, charge: Charge) => Value;
}

const method = (most: number, run: Method["run"], names: readonly string[] = []): Method => ({ names, most, run });

const spaceStart = new RegExp(`^[${whiteSpace}]+`);
const isSpace = new RegExp(`^[${whiteSpace}]$`);
const breaks = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/g;

/** The text without white space, or without some characters, at its ends. */
export function stripped(text: string, chars: Value | undefined, ends: "both" | "start" | "end" = "both"): string {
  if (chars !== undefined && chars !== null && !isText(chars))
    throw new TemplateError(`strip arg must be None or str, not ${typeName(chars)}`);
  const set = chars === undefined || chars === null ? null : new Set(textOf(chars));
  const goes = (character: string): boolean => (set ? set.has(character) : isSpace.test(character));
  const characters = [...text];
  let [start, end] = [0, characters.length];
  if (ends !== "end") while (start < end && goes(characters[start] as string)) start++;
  if (ends !== "start") while (end > start && goes(characters[end - 1] as string)) end--;
  return start === 0 && end === characters.length ? text : characters.slice(start, end).join("");
}

/** Python's str.splitlines(). */
export function splitLines(text: string, keepsEnds = false): string[] {
  const lines: string[] = [];
  let at = 0;
  for (const { 0: end, index } of text.matchAll(breaks)) {
    lines.push(text.slice(at, keepsEnds ? index + end.length : index));
    at = index + end.length;
  }
  if (at < text.length) lines.push(text.slice(at));
  return lines;
}

/** Python's str.replace(). */
export function replaced(text: string, old: string, by: string, count: number, charge: Charge): string {
  if (count === 0 || (old !== "" && !text.includes(old))) return text;
  const pieces = old === "" ? ["", ...text, ""] : text.split(old);
  charge((pieces.length * (8 + by.length)) / 8);
  if (count < 0 || pieces.length <= count + 1) return pieces.join(by);
  return pieces.slice(0, count + 1).join(by) + old + pieces.slice(count + 1).join(old);
}

function split(text: string, separator: Value | undefined, most: Value | undefined, fromEnd: boolean): string[] {
  const limit = most === undefined ? -1 : intOf(most);
  if (separator !== undefined && separator !== null) {
    const by = stringOf(separator);
    if (by === "") throw new TemplateError("empty separator");
    const pieces = text.split(by);
    if (limit < 0 || pieces.length <= limit + 1) return pieces;
    return fromEnd
      ? [pieces.slice(0, pieces.length - limit).join(by), ...pieces.slice(pieces.length - limit)]
      : [...pieces.slice(0, limit), pieces.slice(limit).join(by)];
  }
  const words = [...text.matchAll(new RegExp(`[^${whiteSpace}]+`, "g"))];
  if (limit < 0 || words.length <= limit) return words.map(([word]) => word);
  const kept = fromEnd ? words.slice(words.length - limit) : words.slice(0, limit);
  const rest = fromEnd
    ? stripped(text.slice(0, kept[0]?.index ?? text.length), undefined, "end")
    : stripped(text.slice(words[limit]?.index ?? 0), undefined, "start");
  const list = kept.map(([word]) => word);
  if (limit === 0) return [fromEnd ? stripped(text, undefined, "end") : text.replace(spaceStart, "")];
  return fromEnd ? [rest, ...list] : [...list, rest];
}

function partition(text: string, separator: Value | undefined, fromEnd: boolean): Tuple {
  const by = stringOf(separator);
  if (by === "") throw new TemplateError("empty separator");
  const at = fromEnd ? text.lastIndexOf(by) : text.indexOf(by);
  if (at < 0) return new Tuple(fromEnd ? ["", "", text] : [text, "", ""]);
  return new Tuple([text.slice(0, at), by, text.slice(at + by.length)]);
}

/** The part of a text that `start` and `end` of find() and the like say, in code points. */
function section(text: string, start: Value | undefined, end: Value | undefined): { readonly part: string; readonly from: number } | null {
  if ((start ?? null) === null && (end ?? null) === null) return { part: text, from: 0 };
  const characters = [...text];
  const place = (value: Value | undefined, otherwise: number): number => {
    if (value === undefined || value === null) return otherwise;
    const at = intOf(value);
    return at < 0 ? Math.max(0, at + characters.length) : at;
  };
  const from = place(start, 0);
  if (from > characters.length) return null;
  return { part: characters.slice(from, Math.min(characters.length, place(end, characters.length))).join(""), from };
}

function found([sub, start, end]: Args, text: string, fromEnd: boolean): number {
  const where = section(text, start, end);
  if (!where) return -1;
  const at = fromEnd ? where.part.lastIndexOf(stringOf(sub)) : where.part.indexOf(stringOf(sub));
  return at < 0 ? -1 : where.from + lengthOf(where.part.slice(0, at));
}

function matches(text: string, [affix, start, end]: Args, isAtStart: boolean): boolean {
  const where = section(text, start, end);
  const candidates = affix instanceof Tuple ? affix.items : [affix as Value];
  return candidates.some((candidate) => {
    const part = stringOf(candidate);
    return where !== null && (isAtStart ? where.part.startsWith(part) : where.part.endsWith(part));
  });
}

function stringOf(value: Value | undefined): string {
  if (value === undefined) throw new TemplateError("an argument is missing");
  if (value instanceof Undefined) value.fail();
  if (!isText(value)) throw new TemplateError(`must be str, not ${typeName(value)}`);
  return textOf(value);
}

export function intOf(value: Value | undefined): number {
  if (value instanceof Undefined) value.fail();
  if (value === undefined || !isInt(value))
    throw new TemplateError(`'${value === undefined ? "nothing" : typeName(value)}' object cannot be interpreted as an integer`);
  return Number(value);
}

/** A word with its first letter large and the others small, as str.capitalize() and str.title() write it. */
export function capitalized(text: string): string {
  const [first = "", ...rest] = text;
  return titleCase(first) + rest.join("").toLowerCase();
}

/** Letters of two signs have a form of their own at a word's start. */
function titleCase(letter: string): string {
  const code = letter.codePointAt(0) ?? 0;
  if ((code >= 0x1c4 && code <= 0x1cc) || (code >= 0x1f1 && code <= 0x1f3)) {
    const first = code >= 0x1f1 ? 0x1f1 : 0x1c4 + 3 * Math.floor((code - 0x1c4) / 3);
    return String.fromCodePoint(first + 1);
  }
  const [upper = "", ...rest] = letter.toUpperCase();
  return upper + rest.join("").toLowerCase();
}

const isCased = (text: string): boolean => text.toLowerCase() !== text || text.toUpperCase() !== text;

function aligned(text: string, [width, fill = " "]: Args, align: "<" | ">" | "^", charge: Charge): string {
  const sign = stringOf(fill);
  if (lengthOf(sign) !== 1) throw new TemplateError("The fill character must be exactly one character long");
  const total = intOf(width);
  if (align !== "^") return padded(text, { fill: sign, align, width: total }, charge);
  // Where both sides cannot be equal, Python puts the odd one by the parity of the width.
  const lacking = Math.max(0, total - lengthOf(text));
  charge(lacking / 8);
  const left = (lacking >> 1) + (lacking & total & 1);
  return sign.repeat(left) + text + sign.repeat(lacking - left);
}

const each = (text: string, holds: (character: string) => boolean): boolean => text !== "" && [...text].every(holds);
const isDecimal = (character: string): boolean => /^\p{Nd}$/u.test(character);
const isDigit = (character: string): boolean =>
  /^[\p{Nd}\u00b2\u00b3\u00b9\u2070\u2074-\u2079\u2080-\u2089\u2460-\u2468]$/u.test(character);
const isNumeric = (character: string): boolean => /^\p{N}$/u.test(character);
const isLetter = (character: string): boolean => /^\p{L}$/u.test(character);

/** Methods of Python's str. */
export const textMethods: ReadonlyMap<string, Method> = new Map(
  Object.entries({
    capitalize: method(0, (text) => capitalized(text)),
    casefold: method(0, (text) => text.toLowerCase().replaceAll("ß", "ss")),
    center: method(2, (text, args, charge) => aligned(text, args, "^", charge)),
    count: method(3, (text, [sub, start, end]) => {
      const where = section(text, start, end);
      if (!where) return 0;
      const sought = stringOf(sub);
      return sought === "" ? lengthOf(where.part) + 1 : where.part.split(sought).length - 1;
    }),
    endswith: method(3, (text, args) => matches(text, args, false)),
    expandtabs: method(
      1,
      (text, [size = 8], charge) => {
        let column = 0;
        return text.replace(/\t|[\n\r]|[^\t\n\r]+/g, (part) => {
          if (part === "\n" || part === "\r") column = 0;
          else if (part !== "\t") column += lengthOf(part);
          else {
            const width = intOf(size);
            const count = width > 0 ? width - (column % width) : 0;
            charge(count / 8);
            column += count;
            return " ".repeat(count);
          }
          return part;
        });
      },
      ["tabsize"],
    ),
    find: method(3, (text, args) => found(args, text, false)),
    index: method(3, (text, args) => orMissing(found(args, text, false))),
    isalnum: method(0, (text) => each(text, (character) => isNumeric(character) || isLetter(character))),
    isalpha: method(0, (text) => each(text, isLetter)),
    isascii: method(0, (text) => /^[\x00-\x7f]*$/.test(text)),
    isdecimal: method(0, (text) => each(text, isDecimal)),
    isdigit: method(0, (text) => each(text, isDigit)),
    islower: method(0, (text) => isCased(text) && text === text.toLowerCase()),
    isnumeric: method(0, (text) => each(text, isNumeric)),
    isspace: method(0, (text) => each(text, (character) => isSpace.test(character))),
    isupper: method(0, (text) => isCased(text) && text === text.toUpperCase()),
    istitle: method(0, (text) => isCased(text) && text === titled(text)),
    ljust: method(2, (text, args, charge) => aligned(text, args, "<", charge)),
    lower: method(0, (text) => text.toLowerCase()),
    lstrip: method(1, (text, [chars]) => stripped(text, chars, "start")),
    partition: method(1, (text, [separator]) => partition(text, separator, false)),
    removeprefix: method(1, (text, [prefix]) => (text.startsWith(stringOf(prefix)) ? text.slice(stringOf(prefix).length) : text)),
    removesuffix: method(1, (text, [suffix]) => {
      const end = stringOf(suffix);
      return end !== "" && text.endsWith(end) ? text.slice(0, -end.length) : text;
    }),
    replace: method(3, (text, [old, by, count], charge) =>
      replaced(text, stringOf(old), stringOf(by), count === undefined ? -1 : intOf(count), charge),
    ),
    rfind: method(3, (text, args) => found(args, text, true)),
    rindex: method(3, (text, args) => orMissing(found(args, text, true))),
    rjust: method(2, (text, args, charge) => aligned(text, args, ">", charge)),
    rpartition: method(1, (text, [separator]) => partition(text, separator, true)),
    rsplit: method(2, (text, [separator, most]) => split(text, separator, most, true), ["sep", "maxsplit"]),
    rstrip: method(1, (text, [chars]) => stripped(text, chars, "end")),
    split: method(2, (text, [separator, most]) => split(text, separator, most, false), ["sep", "maxsplit"]),
    splitlines: method(1, (text, [keeps]) => splitLines(text, keeps === true || keeps === 1), ["keepends"]),
    startswith: method(3, (text, args) => matches(text, args, true)),
    strip: method(1, (text, [chars]) => stripped(text, chars)),
    swapcase: method(0, (text) =>
      [...text].map((letter) => (letter === letter.toUpperCase() ? letter.toLowerCase() : letter.toUpperCase())).join(""),
    ),
    title: method(0, (text) => titled(text)),
    upper: method(0, (text) => text.toUpperCase()),
    zfill: method(1, (text, [width], charge) => {
      const [, sign = "", digits = ""] = /^([+-]?)([\s\S]*)$/.exec(text) ?? [];
      return sign + padded(digits, { fill: "0", align: ">", width: intOf(width) - sign.length }, charge);
    }),
  } satisfies Readonly<Record<string, Method>>),
);

function orMissing(place: number): number {
  if (place < 0) throw new TemplateError("substring not found");
  return place;
}

function titled(text: string): string {
  let isStart = true;
  return [...text]
    .map((letter) => {
      const written = isStart ? titleCase(letter) : letter.toLowerCase();
      isStart = !isCased(letter);
      return written;
    })
    .join("");
}

/** Calls a method of a text, marked or not; what is put into a marked text is escaped. */
export function callTextMethod(
  self: string | Markup,
  { names, most, run }: Method,
  positional: readonly Value[],
  named: ReadonlyMap<string, Value>,
  charge: Charge,
): Value {
  const args: (Value | undefined)[] = [...positional];
  for (const [key, value] of named) {
    const place = names.indexOf(key);
    if (place < 0 || place < positional.length) throw new TemplateError(`unexpected keyword argument '${key}'`);
    args[place] = value;
  }
  if (args.length > most) throw new TemplateError(`takes at most ${most} arguments (${args.length} given)`);
  charge(1 + sizeOf(self) + args.reduce((sum: number, arg) => sum + (arg === undefined ? 0 : sizeOf(arg)), 0));
  if (typeof self === "string") return run(self, args, charge);
  const marked = (value: Value): Value => {
    if (typeof value === "string") return new Markup(value);
    if (isList(value)) return value.map((item: Value) => marked(item));
    return value instanceof Tuple ? new Tuple(value.items.map(marked)) : value;
  };
  const safe = args.map((arg) => (arg !== undefined && isText(arg) ? escaped(arg) : arg));
  return marked(run(self.text, safe, charge));
}
