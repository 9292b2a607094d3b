import { numberText, padded, type Spec } from "./format.js";
import { printed, represented } from "./print.js";
import { type Charge, Float, type Given, isInt, isText, TemplateError, textOf, typeName, type Value } from "./values.js";

const specification = /^(?:([\s\S])?([<>=^]))?([-+ ])?(#)?(0)?(\d+)?([,_])?(?:\.(\d+))?([a-zA-Z%])?$/u;

/** How a field goes into a value: `a.b`, `a[0]`. */
export type Lookup = (object: Value, name: string, isAttribute: boolean) => Value;

/** Python's str.format(). */
export function strFormat(format: string, given: Given, lookup: Lookup, charge: Charge): string {
  let used = 0;
  const field = (content: string): string => {
    const found = /^([^!:]*)(?:!([rsa]))?(?::([\s\S]*))?$/.exec(content);
    if (!found) throw new TemplateError(`the field "${content}" is not valid`);
    const [, path = "", conversion, spec = ""] = found;
    const [first = ""] = /^[^.[]*/.exec(path) ?? [];
    let value = named(first, given, () => used++);
    for (const [, attribute, item] of path.slice(first.length).matchAll(/\.([^.[]+)|\[([^\]]+)\]/g))
      value = attribute === undefined ? lookup(value, item ?? "", false) : lookup(value, attribute, true);
    const inner = spec.replace(/\{([^{}]*)\}/g, (_, nested: string) => field(nested));
    if (conversion === undefined) return formatted(value, inner, charge);
    return formatted(conversion === "s" ? printed(value, charge) : represented(value, charge), inner, charge);
  };
  return format.replace(/\{\{|\}\}|\{((?:[^{}]|\{[^{}]*\})*)\}|[{}]/g, (whole, content?: string) => {
    if (content !== undefined) return field(content);
    if (whole.length === 2) return whole[0] as string;
    throw new TemplateError(`Single '${whole}' encountered in format string`);
  });
}

function named(name: string, { positional, named: byName }: Given, next: () => number): Value {
  const place = name === "" ? next() : /^\d+$/.test(name) ? Number(name) : null;
  const value = place === null ? byName.get(name) : positional[place];
  if (value === undefined) throw new TemplateError(place === null ? `KeyError: '${name}'` : "Replacement index out of range");
  return value;
}

/** Python's format(). */
export function formatted(value: Value, text: string, charge: Charge): string {
  if (text === "") return printed(value, charge);
  const found = specification.exec(text);
  if (!found) throw new TemplateError(`Invalid format specifier '${text}'`);
  const [, fill, align, sign, alternate, zero, width, group, precision, type] = found;
  const isNumeric = isInt(value) || value instanceof Float;
  const spec: Spec = {
    fill: fill ?? (zero ? "0" : " "),
    align: (align ?? (zero && isNumeric ? "=" : "")) as Spec["align"],
    sign: (sign ?? "-") as Spec["sign"],
    isAlternate: alternate !== undefined,
    width: Number(width ?? 0),
    group: (group ?? "") as Spec["group"],
    precision: precision === undefined ? null : Number(precision),
    type: type ?? "",
  };
  if (isText(value)) {
    if (spec.type !== "" && spec.type !== "s") throw new TemplateError(`Unknown format code '${spec.type}' for object of type 'str'`);
    const whole = textOf(value);
    return padded(
      spec.precision === null ? whole : [...whole].slice(0, spec.precision).join(""),
      { ...spec, align: spec.align || "<" },
      charge,
    );
  }
  if (!isNumeric) throw new TemplateError(`unsupported format string passed to ${typeName(value)}.__format__`);
  return formattedNumber(value, spec, charge);
}

function formattedNumber(value: number | bigint | boolean | Float, spec: Spec, charge: Charge): string {
  if (spec.type === "%") {
    const share = new Float((value instanceof Float ? value.value : Number(value)) * 100);
    return numberText(share, { ...spec, type: "f", width: spec.width - 1 }, charge).concat("%");
  }
  if ("eEfFgG".includes(spec.type) && spec.type !== "")
    return numberText(value instanceof Float ? value : new Float(Number(value)), { ...spec, precision: spec.precision ?? 6 }, charge);
  if (value instanceof Float) {
    if (spec.type !== "") throw new TemplateError(`Unknown format code '${spec.type}' for object of type 'float'`);
    if (spec.precision === null) {
      const text = printed(new Float(Math.abs(value.value)), charge);
      const sign = value.value < 0 ? "-" : spec.sign === "-" ? "" : spec.sign;
      return padded(sign + text, { ...spec, align: spec.align === "=" || spec.align === "" ? ">" : spec.align }, charge);
    }
    return numberText(value, { ...spec, type: "g" }, charge);
  }
  if (!["", "d", "x", "X", "o", "b", "n"].includes(spec.type))
    throw new TemplateError(`Unknown format code '${spec.type}' for object of type 'int'`);
  return numberText(typeof value === "boolean" ? Number(value) : value, spec, charge);
}
