import { elementsOf } from "./compare.js";
import { printed } from "./print.js";
import { strftime } from "./strftime.js";
import {
  Callable,
  Dict,
  type Given,
  isInt,
  isText,
  Namespace,
  Range,
  TemplateError,
  textOf,
  typeName,
  Undefined,
  type Value,
} from "./values.js";

/** The template itself says no: `raise_exception`. */
export class Refusal extends Error {}

/** Jinja's sandbox gives no longer ranges. */
const longestRange = 100_000;

const free = (): void => {};

/** The names that every template may use: what jinja2 and transformers define. */
export function globals(now: () => Date): ReadonlyMap<string, Value> {
  const functions: Readonly<Record<string, (given: Given) => Value>> = {
    cycler: ({ positional }) => cycler(positional),
    dict: ({ positional: [first], named }) => {
      const pairs = first instanceof Dict ? first.entries() : first === undefined ? [] : elementsOf(first, free).map(pair);
      return new Dict([...pairs, ...named]);
    },
    joiner: ({ positional: [separator = ", "] }) => {
      let isUsed = false;
      return new Callable("<Joiner>", () => {
        const text = isUsed ? separator : "";
        isUsed = true;
        return text;
      });
    },
    namespace: ({ positional: [first], named }) => {
      const fields = new Map<string, Value>(
        first instanceof Dict ? first.entries().map(([key, value]) => [printed(key, free), value]) : [],
      );
      for (const [name, value] of named) fields.set(name, value);
      return new Namespace(fields);
    },
    raise_exception: ({ positional: [reason] }) => {
      throw new Refusal(reason !== undefined && isText(reason) ? textOf(reason) : "it gives no reason");
    },
    range: ({ positional }) => range(positional),
    strftime_now: ({ positional: [format] }) => {
      if (format === undefined || !isText(format)) throw new TemplateError("strftime_now() takes a text");
      return strftime(now(), textOf(format));
    },
  };
  return new Map(Object.entries(functions).map(([name, call]) => [name, new Callable(`<function ${name}>`, call)]));
}

function pair(value: Value): readonly [Value, Value] {
  const [key, item, ...rest] = elementsOf(value, free);
  if (key === undefined || item === undefined || rest.length > 0) throw new TemplateError("dict() takes pairs");
  return [key, item];
}

function cycler(items: readonly Value[]): Value {
  if (items.length === 0) throw new TemplateError("at least one item has to be provided");
  let at = 0;
  const attributes: Readonly<Record<string, () => Value>> = {
    current: () => items[at] as Value,
    next: () =>
      new Callable("<bound method Cycler.next>", () => {
        const value = items[at] as Value;
        at = (at + 1) % items.length;
        return value;
      }),
    reset: () =>
      new Callable("<bound method Cycler.reset>", () => {
        at = 0;
        return null;
      }),
  };
  return new Callable(
    "<Cycler>",
    () => new Undefined("a cycler is not called"),
    (name) => (Object.hasOwn(attributes, name) ? attributes[name]?.() : undefined),
  );
}

/** Python's range. Throws TemplateError where it is longer than Jinja's sandbox allows. */
function range(args: readonly Value[]): Range {
  const numbers = args.map((arg) => {
    if (arg instanceof Undefined) arg.fail();
    if (!isInt(arg)) throw new TemplateError(`range() takes one to three whole numbers, not ${typeName(arg)}`);
    return Number(arg);
  });
  const [first = 0, second, step = 1] = numbers;
  if (numbers.length < 1 || numbers.length > 3) throw new TemplateError("range() takes one to three whole numbers");
  if (step === 0) throw new TemplateError("range() takes no step of 0");
  const made = second === undefined ? new Range(0, first, 1) : new Range(first, second, step);
  if (made.length > longestRange) throw new TemplateError(`a range of ${made.length} is longer than ${longestRange}`);
  return made;
}
