import { rangesOf } from "../unicode/ranges.js";
import { categories, onig, scripts } from "../unicode/tables.js";
import { type CodeSet, negation, union } from "./code-set.js";

/** The long names of general categories. */
const longNames: Readonly<Record<string, string>> = {
  letter: "l",
  casedletter: "lc",
  uppercaseletter: "lu",
  lowercaseletter: "ll",
  titlecaseletter: "lt",
  modifierletter: "lm",
  otherletter: "lo",
  mark: "m",
  combiningmark: "m",
  nonspacingmark: "mn",
  spacingmark: "mc",
  enclosingmark: "me",
  number: "n",
  decimalnumber: "nd",
  letternumber: "nl",
  othernumber: "no",
  punctuation: "p",
  connectorpunctuation: "pc",
  dashpunctuation: "pd",
  openpunctuation: "ps",
  closepunctuation: "pe",
  initialpunctuation: "pi",
  finalpunctuation: "pf",
  otherpunctuation: "po",
  symbol: "s",
  mathsymbol: "sm",
  currencysymbol: "sc",
  modifiersymbol: "sk",
  othersymbol: "so",
  separator: "z",
  spaceseparator: "zs",
  lineseparator: "zl",
  paragraphseparator: "zp",
  other: "c",
  control: "cc",
  format: "cf",
  surrogate: "cs",
  privateuse: "co",
  unassigned: "cn",
};

const known = new Map<string, CodeSet>();

function setOf(table: string): CodeSet {
  const before = known.get(table);
  if (before) return before;
  const borders = rangesOf(table);
  const set = Array.from({ length: borders.length / 2 }, (_, i) => [borders[2 * i] as number, (borders[2 * i + 1] as number) - 1] as const);
  known.set(table, set);
  return set;
}

const find = (names: Readonly<Record<string, string>>, name: string): string | undefined =>
  Object.entries(names).find(([key]) => key.toLowerCase() === name)?.[1];

/** What `\p{name}` holds for the Oniguruma of the Rust tokenizers, or null where there is no table of it. */
export function property(name: string): CodeSet | null {
  const plain = name.toLowerCase().replace(/[\s_-]/g, "");
  if (plain === "any") return [[0, 0x10ffff]];
  const short = longNames[plain] ?? plain;
  const one = find(categories, short);
  if (one !== undefined) return setOf(one);
  if (short === "lc") return union(...["Lu", "Ll", "Lt"].map((key) => setOf(categories[key] ?? "")));
  if (/^[lmnpszc]$/.test(short)) {
    const parts = Object.entries(categories).filter(([key]) => key.toLowerCase().startsWith(short));
    return union(...parts.map(([, table]) => setOf(table)));
  }
  const script = find(scripts, plain);
  return script === undefined ? null : setOf(script);
}

/** What `\s`, `\d` and `\w` hold, and in capitals what they do not. */
export function shorthand(letter: string): CodeSet | null {
  const name = { s: "space", d: "digit", w: "word" }[letter.toLowerCase()];
  if (letter.toLowerCase() === "h") {
    const digits: CodeSet = [
      [0x30, 0x39],
      [0x41, 0x46],
      [0x61, 0x66],
    ];
    return letter === "h" ? digits : negation(digits);
  }
  if (name === undefined) return null;
  const set = setOf(onig[name] ?? "");
  return letter === letter.toLowerCase() ? set : negation(set);
}
