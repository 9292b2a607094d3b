import { elementsOf, isEqual, sizeOf } from "./compare.js";
import { printed } from "./print.js";
import { strFormat } from "./str-format.js";
import { callTextMethod, intOf, textMethods } from "./text-methods.js";
import {
  Callable,
  type Charge,
  Dict,
  Float,
  type Given,
  isInt,
  isList,
  isText,
  Markup,
  Namespace,
  orElse,
  Range,
  TemplateError,
  Tuple,
  textOf,
  typeName,
  Undefined,
  type Value,
  View,
} from "./values.js";

/** Methods that would change a list or a mapping, which a template may not. */
const changing: ReadonlySet<string> = new Set("append clear extend insert pop popitem remove reverse setdefault sort update".split(" "));

/** `object.name`: an attribute first, then an element, as Jinja has it. */
export function attribute(object: Value, name: string, charge: Charge): Value {
  return firstOf(
    ownAttribute(object, name, charge),
    () => element(object, name, charge),
    () => absent(object, name),
  );
}

/** `object[key]`: an element first, then an attribute. */
export function item(object: Value, key: Value, charge: Charge): Value {
  const own = (): Value | undefined => (isText(key) ? ownAttribute(object, textOf(key), charge) : undefined);
  return firstOf(element(object, key, charge), own, () => absent(object, key));
}

/** The first of some values that is there; None is. */
function firstOf(value: Value | undefined, next: () => Value | undefined, last: () => Value): Value {
  return orElse(value, () => orElse(next(), last));
}

function absent(object: Value, key: Value): Undefined {
  if (object instanceof Undefined) object.fail();
  const name = isText(key) ? `'${textOf(key)}'` : isInt(key) ? String(key) : typeName(key);
  const kind = object === null ? "None" : `${typeName(object)} object`;
  return new Undefined(isText(key) ? `'${kind}' has no attribute ${name}` : `${kind} has no element ${name}`);
}

/** What stands at a key, or undefined where there is nothing. */
function element(object: Value, key: Value, charge: Charge): Value | undefined {
  if (object instanceof Undefined) object.fail();
  if (object instanceof Dict) return key instanceof Undefined || isList(key) || key instanceof Dict ? undefined : object.get(key);
  if (!isInt(key)) return undefined;
  const at = Number(key);
  if (isText(object)) {
    const text = textOf(object);
    charge(text.length / 8);
    const characters = [...text];
    const found = characters[at < 0 ? at + characters.length : at];
    return found === undefined ? undefined : object instanceof Markup ? new Markup(found) : found;
  }
  if (object instanceof Range) {
    const place = at < 0 ? at + object.length : at;
    return place >= 0 && place < object.length ? object.start + place * object.step : undefined;
  }
  const items = object instanceof Tuple ? object.items : isList(object) ? object : null;
  return items?.[at < 0 ? at + items.length : at];
}

/** `object[start:stop:step]`. */
export function sliced(object: Value, start: Value, stop: Value, step: Value, charge: Charge): Value {
  if (object instanceof Undefined) object.fail();
  const by = step === null ? 1 : intOf(step);
  if (by === 0) throw new TemplateError("slice step cannot be zero");
  const isSequence = isList(object) || object instanceof Tuple || object instanceof Range;
  if (!isSequence && !isText(object)) throw new TemplateError(`'${typeName(object)}' object is not subscriptable`);
  charge(isText(object) ? textOf(object).length : sizeOf(object));
  const items = elementsOf(object, charge);
  const { length } = items;
  const place = (value: Value, otherwise: number): number => {
    if (value === null) return otherwise;
    const at = intOf(value);
    const shifted = at < 0 ? at + length : at;
    return by > 0 ? Math.min(Math.max(shifted, 0), length) : Math.min(Math.max(shifted, -1), length - 1);
  };
  const [from, to] = by > 0 ? [place(start, 0), place(stop, length)] : [place(start, length - 1), place(stop, -1)];
  if (object instanceof Range) return new Range(object.start + from * object.step, object.start + to * object.step, object.step * by);
  const chosen: Value[] = [];
  for (let i = from; by > 0 ? i < to : i > to; i += by) chosen.push(items[i] as Value);
  if (isText(object)) return object instanceof Markup ? new Markup(chosen.join("")) : chosen.join("");
  return object instanceof Tuple ? new Tuple(chosen) : chosen;
}

/** An attribute that Python's type has, or undefined. */
function ownAttribute(object: Value, name: string, charge: Charge): Value | undefined {
  if (object instanceof Undefined) return object.fail();
  if (object instanceof Namespace) return object.fields.get(name);
  if (object instanceof Callable) return object.attributes?.(name);
  if (object instanceof Dict) return dictMethod(object, name, charge);
  if (isText(object)) return textMethod(object, name, charge);
  if (isList(object) || object instanceof Tuple) return listMethod(object, name, charge);
  if (object instanceof Range && ["start", "stop", "step"].includes(name)) return object[name as "start" | "stop" | "step"];
  if (object instanceof Float && name === "is_integer") return callable(object, name, () => Number.isInteger(object.value));
  if (isInt(object) && ["real", "numerator"].includes(name)) return object;
  return undefined;
}

function callable(object: Value, name: string, call: (given: Given) => Value): Callable {
  return new Callable(`<built-in method ${name} of ${typeName(object)} object>`, call);
}

function unsafe(object: Value, name: string): Undefined {
  return new Undefined(`access to attribute '${name}' of '${typeName(object)}' object is unsafe.`);
}

function dictMethod(dict: Dict, name: string, charge: Charge): Value | undefined {
  const paid = (call: (given: Given) => Value): Callable =>
    callable(dict, name, (given) => {
      charge(dict.size);
      return call(given);
    });
  switch (name) {
    case "get":
      return callable(dict, name, ({ positional: [key, otherwise = null], named }) => {
        if (key === undefined || named.size > 0) throw new TemplateError("get() takes one or two arguments, not by name");
        return orElse(dict.get(key), () => otherwise);
      });
    case "keys":
    case "values":
    case "items":
      return paid(() => new View(name, dict));
    case "copy":
      return paid(() => new Dict(dict.entries()));
    default:
      return changing.has(name) && !["append", "extend", "insert", "remove", "reverse", "sort"].includes(name)
        ? unsafe(dict, name)
        : undefined;
  }
}

function listMethod(list: readonly Value[] | Tuple, name: string, charge: Charge): Value | undefined {
  const items = list instanceof Tuple ? list.items : list;
  switch (name) {
    case "count":
    case "index":
      return callable(list, name, ({ positional: [sought] }) => {
        if (sought === undefined) throw new TemplateError(`${name}() takes one argument`);
        const same = items.flatMap((value, i) => (isEqual(value, sought, charge) ? [i] : []));
        if (name === "count") return same.length;
        const [first] = same;
        if (first === undefined) throw new TemplateError("the value is not in the list");
        return first;
      });
    case "copy":
      return isList(list) ? callable(list, name, () => [...items]) : undefined;
    default:
      return isList(list) && changing.has(name) && !["popitem", "setdefault", "update"].includes(name) ? unsafe(list, name) : undefined;
  }
}

function textMethod(text: string | Markup, name: string, charge: Charge): Value | undefined {
  const known = textMethods.get(name);
  if (known) return callable(text, name, ({ positional, named }) => callTextMethod(text, known, positional, named, charge));
  if (name === "join") return callable(text, name, ({ positional: [items] }) => joinedBy(text, items, charge));
  if (name === "format" || name === "format_map")
    return callable(text, name, (given) => {
      const [fields] = given.positional;
      const used: Given =
        name === "format" || !(fields instanceof Dict)
          ? given
          : { positional: [], named: new Map(fields.entries().map(([key, value]) => [printed(key, charge), value])) };
      const lookup = (object: Value, path: string, isAttribute: boolean): Value =>
        isAttribute ? attribute(object, path, charge) : item(object, /^\d+$/.test(path) ? Number(path) : path, charge);
      const out = strFormat(textOf(text), used, lookup, charge);
      return text instanceof Markup ? new Markup(out) : out;
    });
  return name.startsWith("__") ? unsafe(text, name) : undefined;
}

function joinedBy(separator: string | Markup, items: Value | undefined, charge: Charge): Value {
  if (items === undefined) throw new TemplateError("join() takes one argument");
  const parts = elementsOf(items, charge).map((part, i) => {
    if (part instanceof Undefined || !isText(part))
      throw new TemplateError(`sequence item ${i}: expected str instance, ${typeName(part)} found`);
    return textOf(part);
  });
  const by = textOf(separator);
  charge(parts.reduce((sum, part) => sum + part.length + by.length, 0) / 8);
  return separator instanceof Markup ? new Markup(parts.join(by)) : parts.join(by);
}
