import { AdapterError } from "../errors.js";

/** The numbers that several methods are set up with, all of them optional here. */
export interface Sizes {
  readonly rank?: number;
  readonly alpha?: number;
  readonly rankPattern?: Readonly<Record<string, number>>;
  readonly alphaPattern?: Readonly<Record<string, number>>;
  /** Shares in [0, 1), by option name. */
  readonly dropout?: number;
  readonly rankDropout?: number;
  readonly moduleDropout?: number;
}

/** Throws AdapterError for a rank that is no whole number of at least 1, an alpha that is no number and a share outside [0, 1). */
export function checkSizes({ rank = 1, alpha = 1, rankPattern = {}, alphaPattern = {}, ...shares }: Sizes): void {
  for (const [name, value] of [["rank", rank], ...entriesOf("rankPattern", rankPattern)] as const) {
    if (!Number.isInteger(value) || value < 1)
      throw new AdapterError(`${name} is ${value}. It is a whole number of at least 1; 4 to 64 are usual.`, [name]);
  }
  for (const [name, value] of [["alpha", alpha], ...entriesOf("alphaPattern", alphaPattern)] as const) {
    if (!Number.isFinite(value))
      throw new AdapterError(`${name} is ${value}. It is a number; the rank or twice the rank is usual.`, [name]);
  }
  for (const [name, value] of Object.entries(shares)) {
    if (!(value >= 0 && value < 1))
      throw new AdapterError(`${name} is ${value}. It is a share from 0 up to, but not including, 1.`, [name]);
  }
}

function entriesOf(option: string, patterns: Readonly<Record<string, number>>): (readonly [string, number])[] {
  return Object.entries(patterns).map(([pattern, value]) => [`${option} "${pattern}"`, value]);
}

/** Throws AdapterError unless the value is one of those allowed. */
export function checkChoice<Value extends string>(option: string, value: Value, allowed: readonly Value[]): void {
  if (!allowed.includes(value))
    throw new AdapterError(`${option} is "${String(value)}". Use ${allowed.map((one) => `"${one}"`).join(" or ")}.`, [option]);
}
