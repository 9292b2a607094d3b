import {
  anyOf,
  choice,
  codePointBetween,
  codePointExcept,
  type Expression,
  optional,
  reference,
  repeat,
  sequence,
  text,
} from "./expression.js";

const quote = text('"');
const [quotePoint, backslashPoint] = [0x22, 0x5c];
const hex = anyOf("0123456789abcdefABCDEF");

/** Nothing, a space, or a line break with what indents the next line: as those who write JSON do it, and not without end. */
export const space: Expression = optional(choice(text(" "), sequence(optional(text("\r")), text("\n"), repeat(anyOf(" \t"), 0, 32))));

/** A character of a string that is written as itself. */
const plain = codePointExcept([quotePoint, backslashPoint]);

/** A code point of a string, as itself or escaped; half a pair of surrogates is none. */
export const character: Expression = choice(
  plain,
  sequence(
    text("\\"),
    choice(
      anyOf('"\\/bfnrt'),
      sequence(text("u"), choice(sequence(anyOf("0123456789abcefABCEF"), hex), sequence(anyOf("dD"), anyOf("01234567"))), hex, hex),
      sequence(text("u"), anyOf("dD"), anyOf("89abAB"), hex, hex, text("\\u"), anyOf("dD"), anyOf("cdefCDEF"), hex, hex),
    ),
  ),
);

/** A string of so many code points. */
export function string(min = 0, max: number = Number.POSITIVE_INFINITY): Expression {
  return sequence(quote, repeat(character, min, max), quote);
}

/** A string in quotation marks that nothing escapes, and that is none of some. */
export function stringExcept(names: readonly string[]): Expression {
  const escaped = (name: string): boolean => JSON.stringify(name) !== `"${name}"`;
  const points = names.filter((name) => !escaped(name)).map((name) => Array.from(name, (sign) => sign.codePointAt(0) ?? 0));
  return sequence(quote, restExcept(points), quote);
}

/** What completes no name: `names` are what is left of those that the string has begun with. */
function restExcept(names: readonly (readonly number[])[]): Expression {
  if (names.length === 0) return repeat(plain, 0);
  const byFirst = new Map<number, (readonly number[])[]>();
  for (const [first, ...rest] of names) if (first !== undefined) byFirst.set(first, [...(byFirst.get(first) ?? []), rest]);
  const others = codePointExcept([quotePoint, backslashPoint, ...byFirst.keys()]);
  const going = [...byFirst].map(([first, rest]) => sequence(codePointBetween(first, first), restExcept(rest)));
  const open = choice(...going, sequence(others, repeat(plain, 0)));
  return names.some(({ length }) => length === 0) ? open : optional(open);
}

/** Digits of a number before and behind its point: more than a double has would be infinite in the end. */
export const maxDigits = 16;
const digit = anyOf("0123456789");

/** A number of JSON. */
export const number: Expression = sequence(
  optional(text("-")),
  choice(text("0"), sequence(anyOf("123456789"), repeat(digit, 0, maxDigits - 1))),
  optional(sequence(text("."), repeat(digit, 1, maxDigits))),
  optional(sequence(anyOf("eE"), optional(anyOf("+-")), repeat(digit, 1, 2))),
);

/** An element behind another one. */
export const separated = (item: Expression): Expression => sequence(space, text(","), space, item);

/** A list of so many items behind some that are fixed. */
export function list(fixed: readonly Expression[], item: Expression, min: number, max: number): Expression {
  const [first, ...others] = fixed;
  const rest = (before: number): Expression => repeat(separated(item), Math.max(0, min - before), max - before);
  const filled = first ? sequence(first, ...others.map(separated), rest(fixed.length)) : max < 1 ? choice() : sequence(item, rest(1));
  const inside = !first && min === 0 ? optional(sequence(filled, space)) : sequence(filled, space);
  return sequence(text("["), space, inside, text("]"));
}

/** A name and a value. */
export function member(name: Expression, value: Expression): Expression {
  return sequence(name, space, text(":"), space, value);
}

/** Any value. */
export const value: Expression = choice(
  text("null"),
  text("true"),
  text("false"),
  number,
  string(),
  list(
    [],
    reference(() => value),
    0,
    Number.POSITIVE_INFINITY,
  ),
  sequence(text("{"), space, optional(sequence(anyMember(), repeat(separated(anyMember()), 0), space)), text("}")),
);

function anyMember(): Expression {
  return member(
    string(),
    reference(() => value),
  );
}

/** One value, with white space wherever it may stand. */
export function literal(content: unknown): Expression {
  if (Array.isArray(content)) {
    const items = content.map(literal);
    return list(items, choice(), items.length, items.length);
  }
  if (typeof content !== "object" || content === null) return text(JSON.stringify(content));
  const members = Object.entries(content).map(([name, held]) => member(text(JSON.stringify(name)), literal(held)));
  const [first, ...others] = members;
  return sequence(text("{"), space, first ? sequence(first, ...others.map(separated), space) : sequence(), text("}"));
}
