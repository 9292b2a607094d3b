import { printed, represented } from "./print.js";
import {
  type Charge,
  Dict,
  Float,
  isInt,
  isText,
  Markup,
  orElse,
  Range,
  TemplateError,
  Tuple,
  textOf,
  typeName,
  Undefined,
  type Value,
  wholeNumber,
} from "./values.js";

/** What a number or a text is laid out by. */
export interface Spec {
  readonly fill: string;
  readonly align: "<" | ">" | "=" | "^" | "";
  readonly sign: "+" | " " | "-";
  readonly isAlternate: boolean;
  readonly width: number;
  readonly group: "" | "," | "_";
  readonly precision: number | null;
  readonly type: string;
}

/** A text with what HTML has signs for written out, unless it is marked. */
export function escaped(value: string | Markup): string {
  if (value instanceof Markup) return value.text;
  return value.replace(/[&<>"']/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;" })[sign] ?? "&#39;");
}

const percent = /%(?:\(([^)]*)\))?([-#0 +]*)(\*|\d+)?(?:\.(\*|\d+)?)?[hlL]?([\s\S])?/g;

/** Python's `text % values`. */
export function percentFormat(format: string, values: Value, charge: Charge, isMarkup = false): string {
  const items = values instanceof Tuple ? values.items : [values];
  let used = 0;
  const next = (): Value => {
    if (used >= items.length) throw new TemplateError("not enough arguments for format string");
    return items[used++] as Value;
  };
  const count = (text: string | undefined): number | null =>
    text === undefined ? null : text === "*" ? Number(asInt(next())) : Number(text);
  const text = format.replace(percent, (whole, key: string | undefined, flags: string, width?: string, digits?: string, type?: string) => {
    if (type === undefined) throw new TemplateError("incomplete format");
    if (type === "%") return "%";
    if (key !== undefined && !(values instanceof Dict)) throw new TemplateError("format requires a mapping");
    const givenWidth = count(width);
    const precision = whole.includes(".") ? (count(digits) ?? 0) : null;
    let value: Value;
    if (key !== undefined) value = orElse((values as Dict).get(key), () => missing(key));
    else value = next();
    const isLeft = flags.includes("-") || (givenWidth ?? 0) < 0;
    const isNumeric = "diufFeEgGxXo".includes(type);
    const spec: Spec = {
      fill: flags.includes("0") && isNumeric && !isLeft ? "0" : " ",
      align: isLeft ? "<" : flags.includes("0") && isNumeric ? "=" : ">",
      sign: flags.includes("+") ? "+" : flags.includes(" ") ? " " : "-",
      isAlternate: flags.includes("#"),
      width: Math.abs(givenWidth ?? 0),
      group: "",
      precision,
      type: type === "i" || type === "u" ? "d" : type,
    };
    return converted(value, spec, charge, isMarkup);
  });
  // What has keys may go unused.
  const isKeyed = [Dict, Undefined, Range].some((kind) => values instanceof kind) || Array.isArray(values);
  const left = values instanceof Tuple || !isKeyed ? items.length - used : 0;
  if (left > 0) throw new TemplateError("not all arguments converted during string formatting");
  return text;
}

function converted(value: Value, spec: Spec, charge: Charge, isMarkup: boolean): string {
  switch (spec.type) {
    case "s":
    case "r":
    case "a": {
      const text = spec.type === "s" ? printed(value, charge) : represented(value, charge);
      return padded(cut(isMarkup && !(value instanceof Markup) ? escaped(text) : text, spec.precision), spec, charge);
    }
    case "c": {
      const text = isText(value) ? textOf(value) : String.fromCodePoint(Number(asInt(value)));
      return padded(text, spec, charge);
    }
    case "d":
      if (value instanceof Float) return numberText(wholeNumber(BigInt(Math.trunc(finite(value.value)))), spec, charge);
      return numberText(asInt(value), spec, charge);
    case "x":
    case "X":
    case "o":
      return numberText(asInt(value), spec, charge);
    case "e":
    case "E":
    case "f":
    case "F":
    case "g":
    case "G":
      return numberText(asFloat(value), { ...spec, precision: spec.precision ?? 6 }, charge);
    default:
      throw new TemplateError(`unsupported format character '${spec.type}'`);
  }
}

function missing(key: string): never {
  throw new TemplateError(`KeyError: '${key}'`);
}

function finite(value: number): number {
  if (!Number.isFinite(value)) throw new TemplateError(`cannot convert float ${value} to integer`);
  return value;
}

function asInt(value: Value): number | bigint {
  if (value instanceof Undefined) value.fail();
  if (!isInt(value)) throw new TemplateError(`an integer is required, not ${typeName(value)}`);
  return typeof value === "boolean" ? Number(value) : value;
}

function asFloat(value: Value): Float {
  if (value instanceof Float) return value;
  if (!isInt(value)) throw new TemplateError(`must be real number, not ${typeName(value)}`);
  return new Float(Number(value));
}

function cut(text: string, precision: number | null): string {
  return precision === null ? text : [...text].slice(0, precision).join("");
}

/** A text in its width. */
export function padded(text: string, { fill, align, width }: Pick<Spec, "fill" | "align" | "width">, charge: Charge): string {
  const lacking = width - [...text].length;
  if (lacking <= 0) return text;
  charge(lacking / 8);
  if (align === "<") return text + fill.repeat(lacking);
  if (align === "^") return fill.repeat(lacking >> 1) + text + fill.repeat(lacking - (lacking >> 1));
  return fill.repeat(lacking) + text;
}

/** A number by its specification, the sign before the fill where that is asked for. */
export function numberText(value: number | bigint | Float, spec: Spec, charge: Charge): string {
  charge((spec.precision ?? 0) / 8);
  if ((spec.precision ?? 0) > 100) throw new TemplateError("a precision of more than 100 digits");
  const isNegative = value instanceof Float ? value.value < 0 || Object.is(value.value, -0) : value < 0;
  let digits: string;
  if (value instanceof Float) digits = floatDigits(Math.abs(value.value), spec);
  else {
    const whole = BigInt(value) < 0n ? -BigInt(value) : BigInt(value);
    const base = { x: 16, X: 16, o: 8, b: 2 }[spec.type] ?? 10;
    digits = whole.toString(base).padStart(spec.precision ?? 0, "0");
    if (spec.isAlternate && base !== 10) digits = `0${spec.type.toLowerCase()}${digits}`;
    if (spec.type === "X") digits = digits.toUpperCase();
  }
  if (spec.group !== "") digits = digits.replace(/^\d+/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, spec.group));
  const sign = isNegative ? "-" : spec.sign === "-" ? "" : spec.sign;
  if (spec.align !== "=") return padded(sign + digits, { ...spec, align: spec.align || ">" }, charge);
  return sign + padded(digits, { fill: spec.fill, align: ">", width: spec.width - sign.length }, charge);
}

function floatDigits(value: number, { type, precision, isAlternate }: Spec): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : "inf";
  const upper = type === "E" || type === "G" || type === "F";
  let text: string;
  switch (type.toLowerCase()) {
    case "f":
    case "%":
      text = rounded(value, precision ?? 6) + (isAlternate && precision === 0 ? "." : "");
      break;
    case "e":
      text = exponent(value.toExponential(precision ?? 6));
      break;
    default: {
      const significant = Math.max(1, precision ?? 6);
      const power = value === 0 ? 0 : Number(value.toExponential(significant - 1).split("e")[1]);
      const trim = (digits: string): string => (digits.includes(".") && !isAlternate ? digits.replace(/\.?0+$/, "") : digits);
      if (power < -4 || power >= significant) {
        const [mantissa = "", rest = ""] = value.toExponential(significant - 1).split("e");
        text = exponent(`${trim(mantissa)}e${rest}`);
      } else text = trim(rounded(value, significant - 1 - power));
    }
  }
  return upper ? text.toUpperCase() : text;
}

function exponent(text: string): string {
  return text.replace(/e([+-])(\d)$/, "e$10$2");
}

/** Digits after the point, ties to even as in Python; JavaScript's toFixed is exact but takes ties upwards. */
export function rounded(value: number, digits: number): string {
  const places = Math.min(100, digits);
  if (Math.abs(value) >= 1e21) return BigInt(value).toString() + (places > 0 ? `.${"0".repeat(places)}` : "");
  const up = value.toFixed(places);
  const exact = value.toFixed(Math.min(100, places + 60));
  const rest = exact.slice(exact.indexOf(".") + 1 + places);
  if (places === 100 || !/^50*$/.test(rest)) return up;
  const down = places === 0 ? exact.slice(0, exact.indexOf(".")) : exact.slice(0, exact.indexOf(".") + 1 + places);
  return /[02468]$/.test(down) ? down : up;
}
