import { binary, signed } from "./arithmetic.js";
import { isLess } from "./compare.js";
import { type Filter, filter } from "./filter.js";
import { rounded } from "./format.js";
import { whiteSpace } from "./lexer.js";
import { intOf } from "./text-methods.js";
import { type Charge, Float, isInt, isText, TemplateError, textOf, typeName, Undefined, type Value, wholeNumber } from "./values.js";

const ends = new RegExp(`^[${whiteSpace}]+|[${whiteSpace}]+$`, "g");

/** Python's float() of a value, or null where it fails. */
function parsedFloat(value: Value): number | null {
  if (value instanceof Float) return value.value;
  if (isInt(value)) return Number(value);
  if (!isText(value)) return null;
  const text = textOf(value)
    .replace(ends, "")
    .replace(/(\d)_(?=\d)/g, "$1");
  if (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)) return Number(text);
  const named = /^([+-]?)(inf|infinity|nan)$/i.exec(text);
  if (!named) return null;
  if (named[2]?.toLowerCase() === "nan") return Number.NaN;
  return named[1] === "-" ? -Infinity : Infinity;
}

/** Python's int() of a value, or null where it fails. */
function parsedInt(value: Value, base: number, charge: Charge): number | bigint | null {
  if (isInt(value)) return typeof value === "boolean" ? Number(value) : value;
  if (value instanceof Float) return Number.isFinite(value.value) ? wholeNumber(BigInt(Math.trunc(value.value))) : null;
  if (!isText(value)) return null;
  const text = textOf(value).replace(ends, "");
  charge(text.length);
  const [, sign = "", prefix = "", digits = ""] = /^([+-]?)(0[xob])?(\w+)$/i.exec(text) ?? [];
  const bases: Readonly<Record<string, number>> = { "0x": 16, "0o": 8, "0b": 2 };
  const prefixBase = bases[prefix.toLowerCase()];
  if (prefixBase !== undefined && prefixBase !== base && base !== 0) return null;
  const used = prefixBase ?? (base === 0 ? 10 : base);
  if (!/^[\da-z]+(_[\da-z]+)*$/i.test(digits) || used < 2 || used > 36) return null;
  let total = 0n;
  for (const digit of digits.replaceAll("_", "")) {
    const place = Number.parseInt(digit, 36);
    if (place >= used) return null;
    total = total * BigInt(used) + BigInt(place);
  }
  return wholeNumber(sign === "-" ? -total : total);
}

export const numberFilters: Readonly<Record<string, Filter>> = {
  abs: filter("", (value, _, { charge }) => {
    if (value instanceof Undefined) value.fail();
    if (!isInt(value) && !(value instanceof Float)) throw new TemplateError(`bad operand type for abs(): '${typeName(value)}'`);
    if (value instanceof Float) return new Float(Math.abs(value.value));
    return isLess(value, 0, charge) ? signed("-", value) : signed("+", value);
  }),
  filesizeformat: filter("binary", (value, [isBinary = false]) => {
    const bytes = parsedFloat(value);
    if (bytes === null) throw new TemplateError("filesizeformat takes a number");
    const base = isBinary === true ? 1024 : 1000;
    if (bytes === 1) return "1 Byte";
    if (bytes < base) return `${Math.trunc(bytes)} Bytes`;
    const power = [2, 3, 4, 5, 6, 7, 8].find((exponent) => bytes < base ** exponent) ?? 9;
    return `${rounded((base * bytes) / base ** power, 1)} ${isBinary === true ? `${"KMGTPEZY"[power - 2]}iB` : `${"kMGTPEZY"[power - 2]}B`}`;
  }),
  float: filter("default", (value, [otherwise = new Float(0)]) => {
    if (value instanceof Undefined) value.fail();
    const parsed = parsedFloat(value);
    return parsed === null ? otherwise : new Float(parsed);
  }),
  int: filter("default base", (value, [otherwise = 0, base = 10], { charge }) => {
    if (value instanceof Undefined) value.fail();
    const parsed = parsedInt(value, intOf(base), charge);
    if (parsed !== null) return parsed;
    const float = parsedFloat(value);
    return float !== null && Number.isFinite(float) ? wholeNumber(BigInt(Math.trunc(float))) : otherwise;
  }),
  round: filter("precision method", (value, [precision = 0, method = "common"], { charge }) => {
    if (value instanceof Undefined) value.fail();
    const digits = intOf(precision);
    if (!isInt(value) && !(value instanceof Float)) throw new TemplateError(`type ${typeName(value)} doesn't define __round__ method`);
    if (method === "common") {
      if (value instanceof Float) return new Float(roundedTo(value.value, digits));
      return digits >= 0 ? signed("+", value) : wholeNumber(BigInt(roundedTo(Number(value), digits)));
    }
    if (method !== "ceil" && method !== "floor") throw new TemplateError("method must be common, ceil or floor");
    const scale = 10 ** digits;
    const scaled = binary("*", value, Number.isInteger(scale) ? scale : new Float(scale), charge);
    const whole = Math[method](scaled instanceof Float ? scaled.value : Number(scaled as number | bigint));
    return new Float(whole / scale);
  }),
};

/** Python's round() of a float. */
function roundedTo(value: number, digits: number): number {
  if (!Number.isFinite(value)) return value;
  if (digits >= 0) return Number(rounded(value, digits));
  const scale = 10 ** -digits;
  return Number(rounded(value / scale, 0)) * scale;
}
