import { elementsOf } from "./compare.js";
import { escaped, percentFormat } from "./format.js";
import { printed } from "./print.js";
import type { BinaryOperator } from "./syntax.js";
import {
  type Charge,
  Float,
  isInt,
  isList,
  isText,
  Markup,
  TemplateError,
  Tuple,
  textOf,
  typeName,
  Undefined,
  type Value,
  wholeNumber,
} from "./values.js";

/** Python's binary operators on a template's values. Throws TemplateError where its types do not go together. */
export function binary(operator: BinaryOperator, left: Value, right: Value, charge: Charge): Value {
  for (const value of [left, right]) if (value instanceof Undefined && !(operator === "%" && isText(left))) value.fail();
  if (isNumber(left) && isNumber(right)) return numeric(operator, left, right, charge);
  switch (operator) {
    case "+":
      return joined(left, right, charge);
    case "*":
      return repeated(left, right, charge);
    case "%":
      if (left instanceof Markup) return new Markup(percentFormat(left.text, right, charge, true));
      if (typeof left === "string") return percentFormat(left, right, charge);
      break;
    default:
  }
  throw unsupported(operator, left, right);
}

/** `-x`, `+x`. */
export function signed(operator: "+" | "-", value: Value): Value {
  if (value instanceof Undefined) value.fail();
  if (!isNumber(value)) throw new TemplateError(`bad operand type for unary ${operator}: '${typeName(value)}'`);
  if (value instanceof Float) return operator === "-" ? new Float(-value.value) : value;
  const whole = integer(value);
  return operator === "+" ? whole : typeof whole === "bigint" ? wholeNumber(-whole) : 0 - whole;
}

function isNumber(value: Value): value is number | bigint | boolean | Float {
  return isInt(value) || value instanceof Float;
}

function integer(value: number | bigint | boolean): number | bigint {
  return typeof value === "boolean" ? Number(value) : value;
}

function joined(left: Value, right: Value, charge: Charge): Value {
  if (isText(left) && isText(right)) {
    charge((textOf(left).length + textOf(right).length) / 8);
    if (left instanceof Markup || right instanceof Markup) return new Markup(escaped(left) + escaped(right));
    return left + right;
  }
  // What is added to a marked text may have a text of its own; only texts have one here.
  const lists = [left, right].every((value) => isList(value)) || [left, right].every((value) => value instanceof Tuple);
  if (lists) {
    const items = [...elementsOf(left, charge), ...elementsOf(right, charge)];
    return left instanceof Tuple ? new Tuple(items) : items;
  }
  if (isText(left)) throw new TemplateError(`can only concatenate str (not "${typeName(right)}") to str`);
  throw unsupported("+", left, right);
}

function repeated(left: Value, right: Value, charge: Charge): Value {
  const [value, times] = isInt(left) ? [right, left] : [left, right];
  if (!isInt(times)) throw unsupported("*", left, right);
  const count = Math.max(0, Number(times));
  if (isText(value)) {
    charge((count * textOf(value).length) / 8);
    const text = textOf(value) === "" ? "" : textOf(value).repeat(count);
    return value instanceof Markup ? new Markup(text) : text;
  }
  if (!isList(value) && !(value instanceof Tuple)) throw unsupported("*", left, right);
  const items = elementsOf(value, charge);
  charge(count * items.length);
  const all = items.length === 0 ? [] : Array.from({ length: count }, () => items).flat();
  return value instanceof Tuple ? new Tuple(all) : all;
}

function numeric(
  operator: BinaryOperator,
  a: number | bigint | boolean | Float,
  b: number | bigint | boolean | Float,
  charge: Charge,
): Value {
  if (a instanceof Float || b instanceof Float || operator === "/" || (operator === "**" && Number(b) < 0))
    return new Float(floating(operator, a instanceof Float ? a.value : Number(a), b instanceof Float ? b.value : Number(b)));
  const [x, y] = [integer(a), integer(b)];
  if (typeof x === "number" && typeof y === "number") {
    const quick = small(operator, x, y);
    if (Number.isSafeInteger(quick)) return quick + 0;
  }
  const bits = (value: number | bigint): number => Math.log2(Math.abs(Number(value)) + 2);
  charge((operator === "**" ? Number(y) * bits(x) : bits(x) + bits(y)) / 64);
  return wholeNumber(large(operator, BigInt(x), BigInt(y)));
}

/** Of whole numbers; beyond 2^53 it is not exact, and done again. */
function small(operator: BinaryOperator, x: number, y: number): number {
  if (operator === "+") return x + y;
  if (operator === "-") return x - y;
  if (operator === "*") return x * y;
  if (operator === "**") return x ** y;
  return Number.NaN;
}

function large(operator: BinaryOperator, x: bigint, y: bigint): bigint {
  switch (operator) {
    case "+":
      return x + y;
    case "-":
      return x - y;
    case "*":
      return x * y;
    case "**":
      return x ** y;
    default: {
      if (y === 0n) throw new TemplateError("integer division or modulo by zero");
      const rest = x % y;
      const isOff = rest !== 0n && rest < 0n !== y < 0n;
      if (operator === "%") return isOff ? rest + y : rest;
      return (x - rest) / y - (isOff ? 1n : 0n);
    }
  }
}

function floating(operator: BinaryOperator, x: number, y: number): number {
  switch (operator) {
    case "+":
      return x + y;
    case "-":
      return x - y;
    case "*":
      return x * y;
    case "**":
      if (x === 0 && y < 0) throw new TemplateError("0.0 cannot be raised to a negative power");
      return x ** y;
    default: {
      if (y === 0) throw new TemplateError("division by zero");
      if (operator === "/") return x / y;
      const rest = x % y;
      const modulo = rest !== 0 && rest < 0 !== y < 0 ? rest + y : rest;
      return operator === "%" ? modulo : Math.round((x - modulo) / y);
    }
  }
}

function unsupported(operator: string, left: Value, right: Value): TemplateError {
  return new TemplateError(`unsupported operand type(s) for ${operator}: '${typeName(left)}' and '${typeName(right)}'`);
}

/** `a ~ b`: all as text. */
export function concatenated(values: readonly Value[], charge: Charge): string {
  const texts = values.map((value) => printed(value, charge));
  charge(texts.reduce((sum, text) => sum + text.length, 0) / 8);
  return texts.join("");
}
