import { anyOf, choice, type Expression, optional, repeat, sequence, stringsBetween, text } from "./expression.js";
import { maxDigits } from "./json.js";

/** What a number must be: at least `min` and at most `max`, itself excluded where that is said. */
export interface Bounds {
  readonly min: number;
  readonly max: number;
  readonly isMinOpen: boolean;
  readonly isMaxOpen: boolean;
}

const [zero, nine] = [0x30, 0x39];
const digit = anyOf("0123456789");

/** The whole numbers from `min`, at least 0, to `max`, in decimal digits. */
function wholeBetween(min: number, max: number): Expression {
  if (min > max) return choice();
  const low = String(min);
  const longest = max === Number.POSITIVE_INFINITY ? Math.max(maxDigits, low.length) : String(max).length;
  const options: Expression[] = [];
  for (let length = low.length; length <= longest; length++) {
    const from = length === low.length ? low : `1${"0".repeat(length - 1)}`;
    const to = max !== Number.POSITIVE_INFINITY && length === longest ? String(max) : "9".repeat(length);
    options.push(stringsBetween(codesOf(from), codesOf(to), zero, nine));
  }
  return choice(...options);
}

function codesOf(digits: string): number[] {
  return Array.from(digits, (sign) => sign.charCodeAt(0));
}

/** Whole numbers within bounds, which are whole or infinite. */
export function integerWithin({ min, max, isMinOpen, isMaxOpen }: Bounds): Expression {
  const [low, high] = [isMinOpen ? min + 1 : min, isMaxOpen ? max - 1 : max];
  return choice(wholeBetween(Math.max(0, low), high), sequence(text("-"), wholeBetween(Math.max(1, -high), -low)));
}

/** Numbers without an exponent within bounds, which are whole or infinite: with so few decimals that no double rounds them to a bound. */
export function numberWithin({ min, max, isMinOpen, isMaxOpen }: Bounds): Expression {
  const decimals = Math.max(1, maxDigits - 1 - largestDigits(min, max));
  const options = [
    magnitudeWithin({ min: Math.max(0, min), max, isMinOpen: isMinOpen && min >= 0, isMaxOpen }, decimals),
    // Below zero, and zero is written without its sign.
    sequence(
      text("-"),
      magnitudeWithin({ min: Math.max(0, -max), max: -min, isMinOpen: max >= 0 || isMaxOpen, isMaxOpen: isMinOpen }, decimals),
    ),
  ];
  return choice(...options);
}

function largestDigits(...bounds: readonly number[]): number {
  return bounds.reduce((most, bound) => (Number.isFinite(bound) ? Math.max(most, String(Math.abs(bound)).length) : most), 1);
}

/** Of bounds of at least 0. */
function magnitudeWithin({ min, max, isMinOpen, isMaxOpen }: Bounds, decimals: number): Expression {
  if (min > max) return choice();
  const zeros = optional(sequence(text("."), repeat(text("0"), 1, decimals)));
  const fraction = sequence(text("."), repeat(digit, 1, decimals));
  const above = sequence(text("."), repeat(digit, 0, decimals - 1), anyOf("123456789"));
  const options: Expression[] = [];
  if (!isMinOpen && (min < max || !isMaxOpen)) options.push(sequence(wholeBetween(min, min), zeros));
  if (min < max) {
    options.push(sequence(wholeBetween(min, min), above));
    options.push(sequence(wholeBetween(min + 1, max === Number.POSITIVE_INFINITY ? max : max - 1), optional(fraction)));
    if (!isMaxOpen && max !== Number.POSITIVE_INFINITY) options.push(sequence(wholeBetween(max, max), zeros));
  }
  return choice(...options);
}
