import { anyOf, byteBetween, choice, type Expression, optional, repeat, sequence, text } from "./expression.js";

const digit = byteBetween(0x30, 0x39);
const hex = anyOf("0123456789abcdef");
const digits = (count: number): Expression => repeat(digit, count, count);
const hexes = (count: number): Expression => repeat(hex, count, count);
const below24 = choice(sequence(anyOf("01"), digit), sequence(text("2"), anyOf("0123")));
const below60 = sequence(anyOf("012345"), digit);

/** Days that every year has. */
const day = choice(
  sequence(
    choice(sequence(text("0"), anyOf("123456789")), sequence(text("1"), anyOf("012"))),
    text("-"),
    choice(sequence(text("0"), anyOf("123456789")), sequence(text("1"), digit), sequence(text("2"), anyOf("012345678"))),
  ),
  sequence(choice(sequence(text("0"), anyOf("13456789")), sequence(text("1"), anyOf("012"))), text("-"), choice(text("29"), text("30"))),
  sequence(choice(sequence(text("0"), anyOf("13578")), text("10"), text("12")), text("-31")),
);
const date = sequence(digits(4), text("-"), day);
const time = sequence(
  below24,
  text(":"),
  below60,
  text(":"),
  below60,
  optional(sequence(text("."), repeat(digit, 1, 9))),
  choice(text("Z"), sequence(anyOf("+-"), below24, text(":"), below60)),
);

/** The forms of RFC 3339 (29 February is left out) and RFC 4122. */
export const formats: Readonly<Record<string, Expression>> = {
  date,
  time,
  "date-time": sequence(date, text("T"), time),
  uuid: sequence(hexes(8), ...[4, 4, 4, 12].flatMap((count) => [text("-"), hexes(count)])),
};
