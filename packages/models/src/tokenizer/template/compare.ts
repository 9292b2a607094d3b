import { RenderLimit } from "./meter.js";
import {
  Callable,
  type Charge,
  Dict,
  Float,
  isInt,
  isList,
  isText,
  Markup,
  Namespace,
  Range,
  Stream,
  TemplateError,
  Tuple,
  textOf,
  typeName,
  Undefined,
  type Value,
  View,
} from "./values.js";

/** Whether a value counts as true. */
export function isTrue(value: Value): boolean {
  if (value === null || value === false || value === "" || value === 0 || value === 0n) return false;
  if (value instanceof Float) return value.value !== 0;
  if (value instanceof Undefined) return false;
  if (value instanceof Dict) return value.size > 0;
  if (value instanceof Tuple) return value.items.length > 0;
  if (value instanceof Markup) return value.text !== "";
  if (value instanceof Range) return value.length > 0;
  if (value instanceof View) return value.dict.size > 0;
  return isList(value) ? value.length > 0 : true;
}

/** Steps that going through a value once takes: a text's characters by eight, elements of others. */
export function sizeOf(value: Value): number {
  if (typeof value === "string") return value.length / 8;
  if (value instanceof Markup) return value.text.length / 8;
  if (isList(value)) return value.length;
  if (value instanceof Dict) return value.size;
  if (value instanceof Tuple) return value.items.length;
  if (value instanceof View) return value.dict.size;
  return 0;
}

/** Python's len(), in code points for texts. */
export function lengthOf(value: Value): number {
  if (isText(value)) return codePointCount(textOf(value));
  if (isList(value) || value instanceof Range) return value.length;
  if (value instanceof Dict) return value.size;
  if (value instanceof Tuple) return value.items.length;
  if (value instanceof View) return value.dict.size;
  if (value instanceof Undefined) return 0;
  throw new TemplateError(`object of type '${typeName(value)}' has no len()`);
}

/** The elements of a value, in Python's order: characters of a text, keys of a mapping. */
export function elementsOf(value: Value, charge: Charge): readonly Value[] {
  charge(value instanceof Range ? value.length : 8 * sizeOf(value));
  if (isList(value)) return value;
  if (isText(value)) return [...textOf(value)];
  if (value instanceof Tuple) return value.items;
  if (value instanceof Dict) return value.keys();
  if (value instanceof View) return value.items();
  if (value instanceof Stream) return value.take();
  if (value instanceof Range) return Array.from({ length: value.length }, (_, i) => value.start + i * value.step);
  if (value instanceof Undefined) return [];
  throw new TemplateError(`'${typeName(value)}' object is not iterable`);
}

export function isIterable(value: Value): boolean {
  return !(value === null || isInt(value) || value instanceof Float || value instanceof Namespace || value instanceof Callable);
}

export function codePointCount(text: string): number {
  let count = text.length;
  for (let i = 1; i < text.length; i++)
    if ((text.charCodeAt(i) & 0xfc00) === 0xdc00 && (text.charCodeAt(i - 1) & 0xfc00) === 0xd800) count--;
  return count;
}

/** Values within one another that comparing and printing go through. */
export const deepestValue = 300;

export function deeper(depth: number): number {
  if (depth > deepestValue) throw new RenderLimit(`it goes more than ${deepestValue} values deep`);
  return depth + 1;
}

/** Python's `==`. */
export function isEqual(a: Value, b: Value, charge: Charge, depth = 0): boolean {
  charge(1);
  if (a === b) return true;
  const numeric = compareNumbers(a, b);
  if (numeric !== null) return numeric === 0;
  if (isText(a) && isText(b)) return textOf(a) === textOf(b);
  const [x, y] = [sequenceOf(a), sequenceOf(b)];
  if (x && y)
    return isList(a) === isList(b) && x.length === y.length && x.every((item, i) => isEqual(item, y[i] as Value, charge, deeper(depth)));
  if (a instanceof Dict && b instanceof Dict) {
    if (a.size !== b.size) return false;
    return a.entries().every(([key, value]) => {
      const other = b.get(key);
      return other !== undefined && isEqual(value, other, charge, deeper(depth));
    });
  }
  if (a instanceof Undefined) return b instanceof Undefined;
  if (a instanceof Range && b instanceof Range)
    return a.length === b.length && (a.length === 0 || (a.start === b.start && (a.length === 1 || a.step === b.step)));
  return false;
}

/** Python's `<`. Throws TemplateError where two types have no order. */
export function isLess(a: Value, b: Value, charge: Charge, depth = 0): boolean {
  charge(1);
  const numeric = compareNumbers(a, b);
  if (numeric !== null) return numeric < 0;
  if (isText(a) && isText(b)) {
    charge(2 * Math.min(sizeOf(a), sizeOf(b)));
    return compareTexts(textOf(a), textOf(b)) < 0;
  }
  const [x, y] = [sequenceOf(a), sequenceOf(b)];
  if (x && y && isList(a) === isList(b)) {
    for (let i = 0; i < Math.min(x.length, y.length); i++) {
      const [left, right] = [x[i] as Value, y[i] as Value];
      if (!isEqual(left, right, charge, depth)) return isLess(left, right, charge, deeper(depth));
    }
    return x.length < y.length;
  }
  for (const value of [a, b]) if (value instanceof Undefined) value.fail();
  throw new TemplateError(`'<' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`);
}

function sequenceOf(value: Value): readonly Value[] | null {
  if (isList(value)) return value;
  return value instanceof Tuple ? value.items : null;
}

/** How two numbers compare; NaN where they do not, null where one is no number. */
function compareNumbers(a: Value, b: Value): number | null {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x === null || y === null) return null;
  // Between a number and a bigint JavaScript compares exactly.
  return x < y ? -1 : x > y ? 1 : x <= y ? 0 : Number.NaN;
}

function numberOf(value: Value): number | bigint | null {
  if (value instanceof Float) return value.value;
  return isInt(value) ? (typeof value === "boolean" ? Number(value) : value) : null;
}

/** By code points, where JavaScript compares UTF-16. */
function compareTexts(a: string, b: string): number {
  if (a === b) return 0;
  let i = 0;
  while (i < a.length && i < b.length && a[i] === b[i]) i++;
  if (i >= a.length || i >= b.length) return a.length - b.length;
  const rank = (unit: number): number => (unit >= 0xd800 && unit < 0xe000 ? unit + 0x10000 : unit);
  return rank(a.charCodeAt(i)) - rank(b.charCodeAt(i));
}

/** Python's `in`. */
export function contains(container: Value, item: Value, charge: Charge): boolean {
  charge(1 + sizeOf(container));
  if (isText(container)) {
    if (item instanceof Undefined) item.fail();
    if (!isText(item)) throw new TemplateError(`'in <string>' requires string as left operand, not ${typeName(item)}`);
    return textOf(container).includes(textOf(item));
  }
  if (container instanceof Dict) return container.get(item) !== undefined;
  if (container instanceof View && container.kind === "keys") return container.dict.get(item) !== undefined;
  if (!isIterable(container)) throw new TemplateError(`argument of type '${typeName(container)}' is not iterable`);
  return elementsOf(container, charge).some((element) => isEqual(element, item, charge));
}

/** Python's sorted(): stable, by keys. */
export function sorted<T>(items: readonly T[], keyOf: (item: T) => Value, isReversed: boolean, charge: Charge): T[] {
  const keyed = items.map((item) => ({ item, key: keyOf(item) }));
  const sign = isReversed ? -1 : 1;
  keyed.sort((a, b) => sign * (isLess(a.key, b.key, charge) ? -1 : isLess(b.key, a.key, charge) ? 1 : 0));
  return keyed.map(({ item }) => item);
}
