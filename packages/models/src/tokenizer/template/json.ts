import { deeper, sorted } from "./compare.js";
import { floatText } from "./print.js";
import { type Charge, Dict, Float, isList, isText, TemplateError, Tuple, textOf, typeName, type Value } from "./values.js";

export interface JsonOptions {
  readonly ensureAscii: boolean;
  /** What stands for a level, or null where all is on one line. */
  readonly indent: string | null;
  readonly separators: readonly [item: string, key: string];
  readonly sortKeys: boolean;
}

/** Python's json.dumps(), which transformers puts in the place of Jinja's `tojson`. */
export function toJson(value: Value, options: JsonOptions, charge: Charge, depth = 0): string {
  charge(1);
  const text = (item: string): string => {
    charge(item.length / 8);
    return jsonText(item, options.ensureAscii);
  };
  if (value === null) return "null";
  if (typeof value === "boolean") return String(value);
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  if (value instanceof Float) return jsonFloat(value.value);
  if (isText(value)) return text(textOf(value));
  const level = deeper(depth);
  const inner = (item: Value): string => toJson(item, options, charge, level);
  if (isList(value) || value instanceof Tuple) {
    const items = value instanceof Tuple ? value.items : value;
    return enclosed("[", items.length, (i) => inner(items[i] as Value), "]", options, charge, depth);
  }
  if (!(value instanceof Dict)) throw new TemplateError(`Object of type ${typeName(value)} is not JSON serializable`);
  const entries = options.sortKeys ? sorted(value.entries(), ([key]) => key, false, charge) : value.entries();
  const field = (i: number): string => {
    const [key, item] = entries[i] as readonly [Value, Value];
    return `${text(jsonKey(key))}${options.separators[1]}${inner(item)}`;
  };
  return enclosed("{", entries.length, field, "}", options, charge, depth);
}

function enclosed(
  open: string,
  count: number,
  part: (index: number) => string,
  close: string,
  { indent, separators }: JsonOptions,
  charge: Charge,
  depth: number,
): string {
  if (count === 0) return open + close;
  charge((count * (separators[0].length + separators[1].length + (indent?.length ?? 0) * (depth + 1))) / 8);
  const lineBreak = indent === null ? "" : `\n${indent.repeat(depth + 1)}`;
  const parts = Array.from({ length: count }, (_, i) => part(i));
  const end = indent === null ? "" : `\n${indent.repeat(depth)}`;
  return `${open}${lineBreak}${parts.join(separators[0] + lineBreak)}${end}${close}`;
}

function jsonKey(key: Value): string {
  if (isText(key)) return textOf(key);
  if (key === null) return "null";
  if (typeof key === "boolean" || typeof key === "number" || typeof key === "bigint") return String(key);
  if (key instanceof Float) return jsonFloat(key.value);
  throw new TemplateError(`keys must be str, int, float, bool or None, not ${typeName(key)}`);
}

function jsonFloat(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  return Number.isFinite(value) ? floatText(value) : value > 0 ? "Infinity" : "-Infinity";
}

const short: Readonly<Record<string, string>> = {
  '"': '\\"',
  "\\": "\\\\",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\f": "\\f",
  "\b": "\\b",
};

function jsonText(text: string, ensureAscii: boolean): string {
  const pattern = ensureAscii ? /["\\]|[^ -~]/g : /["\\\x00-\x1f]/g;
  return `"${text.replace(pattern, (unit) => short[unit] ?? `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)}"`;
}
