import { deeper } from "./compare.js";
import { isPrintable } from "./printable.js";
import {
  Callable,
  type Charge,
  Dict,
  Float,
  isList,
  Markup,
  Namespace,
  Range,
  Stream,
  TemplateError,
  Tuple,
  Undefined,
  type Value,
  View,
} from "./values.js";

/** Python's str(): what `{{ }}` writes. */
export function printed(value: Value, charge: Charge): string {
  if (typeof value === "string") return value;
  if (value instanceof Markup) return value.text;
  if (value instanceof Undefined) return "";
  return represented(value, charge);
}

/** Python's repr(), as values stand in a list. */
export function represented(value: Value, charge: Charge, depth = 0): string {
  charge(1);
  const within = (item: Value): string => represented(item, charge, deeper(depth));
  const all = (items: readonly Value[]): string => items.map(within).join(", ");
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  if (typeof value === "string") return quoted(value, charge);
  if (value instanceof Float) return floatText(value.value);
  if (isList(value)) return `[${all(value)}]`;
  if (value instanceof Tuple) return value.items.length === 1 ? `(${all(value.items)},)` : `(${all(value.items)})`;
  if (value instanceof Dict) return mapping(value.entries(), within);
  if (value instanceof View) return `dict_${value.kind}([${all(value.items())}])`;
  if (value instanceof Range) return `range(${value.start}, ${value.stop}${value.step === 1 ? "" : `, ${value.step}`})`;
  if (value instanceof Markup) return `Markup(${quoted(value.text, charge)})`;
  if (value instanceof Undefined) return "Undefined";
  if (value instanceof Namespace) return `<Namespace ${mapping([...value.fields], within)}>`;
  if (value instanceof Callable) return value.shown;
  if (value instanceof Stream) throw new TemplateError("a generator is printed; make a list of it");
  return value satisfies never;
}

function mapping(entries: readonly (readonly [Value, Value])[], within: (item: Value) => string): string {
  return `{${entries.map(([key, value]) => `${within(key)}: ${within(value)}`).join(", ")}}`;
}

/** A text in quotes, with escapes for what cannot be seen. */
function quoted(text: string, charge: Charge): string {
  charge(text.length / 4);
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  let out = quote;
  for (const character of text) {
    const code = character.codePointAt(0) as number;
    if (character === quote || character === "\\") out += `\\${character}`;
    else if (character === "\n") out += "\\n";
    else if (character === "\r") out += "\\r";
    else if (character === "\t") out += "\\t";
    else if (code >= 0x20 && code < 0x7f) out += character;
    else if (isPrintable(code)) out += character;
    else if (code < 0x100) out += `\\x${code.toString(16).padStart(2, "0")}`;
    else out += code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
  }
  return out + quote;
}

/** The shortest decimal that gives the number back, as Python writes it. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (value === 0) return Object.is(value, -0) ? "-0.0" : "0.0";
  const [mantissa = "", power = "0"] = value.toExponential().split("e");
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 16) return `${mantissa}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  const sign = value < 0 ? "-" : "";
  const digits = mantissa.replace(/[-.]/g, "");
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  return `${sign}${whole}.${digits.slice(exponent + 1) || "0"}`;
}
