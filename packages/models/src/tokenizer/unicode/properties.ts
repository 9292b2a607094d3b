import { isWithin, type Ranges, rangesOf } from "./ranges.js";
import * as tables from "./tables.js";

/** A class of code points out of its table, which is read when it is first asked for. */
function classOf(table: string): (code: number) => boolean {
  let ranges: Ranges | null = null;
  return (code) => {
    ranges ??= rangesOf(table);
    return isWithin(ranges, code);
  };
}

/** `\w` of Rust's regex, by which a token counts as a single word. */
export const isWord: (code: number) => boolean = classOf(tables.regexWord);
/** `\s` of Rust's regex. */
export const isRegexSpace: (code: number) => boolean = classOf(tables.regexSpace);
/** Rust's char::is_whitespace. */
export const isWhiteSpace: (code: number) => boolean = classOf(tables.whiteSpace);
/** Rust's char::is_numeric. */
export const isNumeric: (code: number) => boolean = classOf(tables.numeric);
/** What BERT's and the Punctuation pre-tokenizer split off. */
export const isPunctuation: (code: number) => boolean = classOf(tables.punctuation);
/** Control signs and what is not assigned, which BERT's normalizer leaves out. */
export const isOther: (code: number) => boolean = classOf(tables.other);
/** Marks that BERT's normalizer takes for accents. */
export const isNonspacingMark: (code: number) => boolean = classOf(tables.nonspacingMark);
/** Marks that the StripAccents normalizer leaves out. */
export const isCombiningMark: (code: number) => boolean = classOf(tables.combiningMark);
/** What belongs to the grapheme of the sign before it. */
export const isJoining: (code: number) => boolean = classOf(tables.joining);

const controls = ["Cc", "Cf", "Zl", "Zp"].map((name) => classOf(tables.categories[name] ?? ""));

/** What no grapheme goes on from or to: control signs, and code points that are to be ignored where they are not known. */
export function breaksGrapheme(code: number): boolean {
  const isIgnored = code === 0x2065 || (code >= 0xfff0 && code <= 0xfff8) || (code >= 0xe0000 && code <= 0xe0fff);
  return (isIgnored || controls.some((holds) => holds(code))) && !isJoining(code) && !prepended.has(code);
}

/** Signs that belong to the grapheme of the one after them. */
export const prepended: ReadonlySet<number> = new Set([
  0x600, 0x601, 0x602, 0x603, 0x604, 0x605, 0x6dd, 0x70f, 0x890, 0x891, 0x8e2, 0xd4e, 0x110bd, 0x110cd, 0x111c2, 0x111c3,
]);

/** Code points to code points, as a table has them. */
export function mappingOf(table: string): ReadonlyMap<number, readonly number[]> {
  const parsed = (text: string): number => Number.parseInt(text, 36);
  return new Map(
    table.split(";").map((entry) => {
      const [from = "", to = ""] = entry.split("=");
      return [parsed(from), to.split(".").map(parsed)];
    }),
  );
}

let lower: ReadonlyMap<number, readonly number[]> | null = null;

/** Rust's char::to_lowercase; null where a code point is its own. */
export function lowerCase(code: number): readonly number[] | null {
  lower ??= mappingOf(tables.lower);
  return lower.get(code) ?? null;
}

/** The code points of a text. */
export function codePointsOf(text: string): number[] {
  const codes: number[] = [];
  for (let i = 0; i < text.length; i++) {
    const code = text.codePointAt(i) as number; // i is within the text
    codes.push(code);
    if (code > 0xffff) i++;
  }
  return codes;
}

/** Bytes of a code point in UTF-8. */
export function utf8Length(code: number): number {
  return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
}
