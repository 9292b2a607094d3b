import { attribute } from "./attributes.js";
import { elementsOf, isIterable, isTrue, lengthOf, sizeOf } from "./compare.js";
import { type Context, type Filter, filter } from "./filter.js";
import { escaped, percentFormat } from "./format.js";
import { toJson } from "./json.js";
import { numberFilters } from "./number-filters.js";
import { printed, represented } from "./print.js";
import { sequenceFilters } from "./sequence-filters.js";
import { capitalized, intOf, replaced, splitLines, stripped, textMethods } from "./text-methods.js";
import { type Charge, Dict, type Given, isText, Markup, TemplateError, Tuple, textOf, typeName, Undefined, type Value } from "./values.js";

/** A value as a text that stays marked if it is. */
function soft(value: Value, charge: Charge): string | Markup {
  return value instanceof Markup ? value : printed(value, charge);
}

const viaMethod = (name: string, parameters = ""): Filter =>
  filter(parameters, (value, args, { charge }) => {
    const text = soft(value, charge);
    const out = (textMethods.get(name) as { run: (text: string, args: readonly (Value | undefined)[], charge: Charge) => Value }).run(
      text instanceof Markup ? text.text : text,
      args,
      charge,
    );
    return text instanceof Markup && typeof out === "string" ? new Markup(out) : out;
  });

const length = filter("", (value) => lengthOf(value));
const orDefault = filter("default_value boolean", (value, [otherwise = "", asBoolean = false]) =>
  value instanceof Undefined || (isTrue(asBoolean) && !isTrue(value)) ? otherwise : value,
);
const escaping = filter("", (value, _, { charge }) => new Markup(escaped(soft(value, charge))));

const textFilters: Readonly<Record<string, Filter>> = {
  capitalize: filter("", (value, _, { charge }) => capitalized(printed(value, charge))),
  center: filter(
    "width",
    (value, [width = 80], { charge }) => textMethods.get("center")?.run(printed(value, charge), [width], charge) ?? "",
  ),
  e: escaping,
  escape: escaping,
  forceescape: filter("", (value, _, { charge }) => new Markup(escaped(printed(value, charge)))),
  format: filter("*", (value, _, { charge }, { positional, named }) => {
    const values = named.size > 0 ? new Dict(named) : new Tuple(positional);
    return percentFormat(printed(value, charge), values, charge);
  }),
  indent: filter("width first blank", (value, [width = 4, first = false, blank = false], { charge }) => {
    if (!isText(value)) {
      if (value instanceof Undefined) value.fail();
      throw new TemplateError("indent takes a text");
    }
    const lines = splitLines(`${printed(value, charge)}\n`);
    const size = isText(width) ? printed(width, charge).length : intOf(width);
    charge((lines.length * Math.max(0, size)) / 8);
    const indention = isText(width) ? printed(width, charge) : " ".repeat(Math.max(0, size));
    const rest = lines.map((line, i) => (i > 0 && (line !== "" || isTrue(blank)) ? indention + line : line)).join("\n");
    const text = isTrue(first) ? indention + rest : rest;
    return value instanceof Markup ? new Markup(text) : text;
  }),
  lower: viaMethod("lower"),
  pprint: filter("", (value, _, { charge }) => {
    const text = represented(value, charge);
    if (text.length > 80) throw new TemplateError("pprint of more than a line is not supported");
    return text;
  }),
  replace: filter("old new count", (value, [old, by, count], { charge }) => {
    if (old === undefined || by === undefined) throw new TemplateError("replace takes two texts");
    return replaced(
      printed(value, charge),
      printed(old, charge),
      printed(by, charge),
      count === undefined || count === null ? -1 : intOf(count),
      charge,
    );
  }),
  safe: filter("", (value, _, { charge }) => (value instanceof Markup ? value : new Markup(printed(value, charge)))),
  string: filter("", (value, _, { charge }) => soft(value, charge)),
  striptags: filter("", (value, _, { charge }) => {
    const text = printed(value, charge).replace(/<!--[\s\S]*?-->|<[^>]*>/g, "");
    const entities: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', "#34": '"', "#39": "'" };
    return text
      .split(/\s+/)
      .filter(Boolean)
      .join(" ")
      .replace(/&(amp|lt|gt|quot|#34|#39);/g, (_whole, name: string) => entities[name] ?? "");
  }),
  title: filter("", (value, _, { charge }) => printed(value, charge).replace(/[^-\s({[<]+/g, capitalized)),
  tojson: filter(
    "ensure_ascii indent separators sort_keys",
    (value, [ensureAscii = false, indent = null, separators = null, sortKeys = false], { charge }) => {
      const pair = separators === null ? null : elementsOf(separators, charge);
      const step = indent === null ? null : isText(indent) ? printed(indent, charge) : Math.max(0, intOf(indent));
      if (typeof step === "number") charge((step * (1 + sizeOf(value))) / 8);
      return toJson(
        value,
        {
          ensureAscii: isTrue(ensureAscii),
          indent: typeof step === "number" ? " ".repeat(step) : step,
          separators: pair ? [printed(pair[0] ?? "", charge), printed(pair[1] ?? "", charge)] : [step === null ? ", " : ",", ": "],
          sortKeys: isTrue(sortKeys),
        },
        charge,
      );
    },
  ),
  trim: filter("chars", (value, [chars], { charge }) => {
    const text = stripped(printed(value, charge), chars);
    return value instanceof Markup ? new Markup(text) : text;
  }),
  truncate: filter("length killwords end leeway", (value, [most = 255, killwords = false, end = "...", leeway = 5], { charge }) => {
    const tail = printed(end, charge);
    const room = intOf(most) - lengthOf(tail);
    if (room < 0) throw new TemplateError(`expected length >= ${lengthOf(tail)}, got ${intOf(most)}`);
    if (lengthOf(value) <= intOf(most) + (leeway === null ? 5 : intOf(leeway))) return value;
    if (!isText(value)) throw new TemplateError(`${typeName(value)} cannot be truncated`);
    const kept = [...textOf(value)].slice(0, room).join("");
    if (isTrue(killwords)) return kept + tail;
    return (kept.includes(" ") ? kept.slice(0, kept.lastIndexOf(" ")) : kept) + tail;
  }),
  upper: viaMethod("upper"),
  urlencode: filter("", (value, _, { charge }) => {
    const quote = (part: Value, isQuery: boolean): string => {
      const text = encodeURIComponent(printed(part, charge)).replace(
        /[!'()*]/g,
        (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`,
      );
      return isQuery ? text.replaceAll("%20", "+") : text.replaceAll("%2F", "/");
    };
    if (isText(value) || !isIterable(value)) return quote(value, false);
    const pairs = value instanceof Dict ? value.entries() : elementsOf(value, charge).map((pair) => elementsOf(pair, charge));
    return pairs
      .map((pair) => {
        const [key, part] = pair;
        if (pair.length !== 2) throw new TemplateError(`${pair.length} values are there where 2 are expected`);
        return `${quote(key as Value, true)}=${quote(part as Value, true)}`; // two
      })
      .join("&");
  }),
  wordcount: filter("", (value, _, { charge }) => printed(value, charge).match(/[\p{L}\p{N}_]+/gu)?.length ?? 0),
};

/** Jinja's filters with transformers' `tojson`. `random`, `urlize`, `wordwrap` and `xmlattr` are left out: no model's text can depend on them. */
export const filters: ReadonlyMap<string, Filter> = new Map(
  Object.entries({
    attr: filter("name", (value, [name], { charge }) => attribute(value, printed(name ?? "", charge), charge)),
    count: length,
    d: orDefault,
    default: orDefault,
    length,
    ...textFilters,
    ...numberFilters,
    ...sequenceFilters,
  }),
);

/** Runs a filter, with its arguments by place or by name. Throws TemplateError where it does not take them. */
export function runFilter(name: string, value: Value, given: Given, context: Context): Value {
  const found = filters.get(name);
  if (!found) throw new TemplateError(`there is no filter "${name}"`);
  const { parameters, run } = found;
  const args: (Value | undefined)[] = [...given.positional];
  if (parameters[0] !== "*") {
    for (const [key, argument] of given.named) {
      const place = parameters.indexOf(key);
      if (place < 0 || place < given.positional.length) throw new TemplateError(`${name}() got an unexpected keyword argument '${key}'`);
      args[place] = argument;
    }
    if (args.length > parameters.length && parameters[0] !== "*")
      throw new TemplateError(`${name}() takes ${parameters.length} arguments (${args.length} given)`);
  }
  context.charge(
    1 +
      (name === "default" || name === "length" ? 0 : sizeOf(value)) +
      args.reduce((sum: number, arg) => sum + (arg === undefined ? 0 : sizeOf(arg)), 0),
  );
  return run(value, args, context, given);
}
