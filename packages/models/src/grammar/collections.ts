import { shown } from "../schema.js";
import { SchemaError } from "./error.js";
import { choice, type Expression, reference, repeat, sequence, text } from "./expression.js";
import { list, member, separated, space, stringExcept, value } from "./json.js";
import { countIn, type Place, type Schema } from "./keywords.js";

/** Lists of a schema's keywords. */
export function arrayOf(schema: Schema, { path, convert }: Place): Expression {
  const { items, prefixItems = [] } = schema;
  if (Array.isArray(items)) throw new SchemaError(path, 'has a list as "items"', 'Write it as "prefixItems".');
  if (!Array.isArray(prefixItems)) throw new SchemaError(path, `has ${shown(prefixItems)} as "prefixItems"`, "Write a list.");
  const fixed = prefixItems.map((item, i) => convert(item, `${path}/prefixItems/${i}`));
  const min = countIn(schema, "minItems", path) ?? 0;
  // Behind items of their own, others come only where there must be more.
  const item = items !== undefined ? convert(items, `${path}/items`) : fixed.length > 0 && fixed.length >= min ? choice() : value;
  const max = countIn(schema, "maxItems", path) ?? Number.POSITIVE_INFINITY;
  if (fixed.length > 0 && max < fixed.length) return list(fixed.slice(0, max), choice(), min, max);
  return list(fixed, item, min, max);
}

/** Objects of a schema's keywords: its properties in their order, then others, where `additionalProperties` says that there are. */
export function objectOf(schema: Schema, { path, convert }: Place): Expression {
  const { properties = {}, required = [], additionalProperties: others } = schema;
  if (typeof properties !== "object" || properties === null || Array.isArray(properties))
    throw new SchemaError(path, `has ${shown(properties)} as "properties"`, "Write an object of schemas.");
  if (!Array.isArray(required) || required.some((name) => typeof name !== "string"))
    throw new SchemaError(path, `has ${shown(required)} as "required"`, "Write a list of names.");
  const wanted = new Set(required as readonly string[]);
  const extra = others === undefined ? null : convert(others, `${path}/additionalProperties`);
  const named = Object.entries(properties).map(([name, content]) => ({
    name,
    content: convert(content, `${path}/properties/${pointerPart(name)}`),
    isRequired: wanted.has(name),
  }));
  const unnamed = [...wanted].filter((name) => !Object.hasOwn(properties, name));
  const all = [...named, ...unnamed.map((name) => ({ name, content: extra ?? value, isRequired: true }))];
  const more = extra && others !== false ? member(stringExcept(all.map(({ name }) => name)), extra) : null;

  // Behind the last one: nothing, or others.
  let behind: Expression = more ? repeat(separated(more), 0) : sequence();
  let first: Expression = more ? choice(sequence(), sequence(more, behind, space)) : sequence();
  for (const { name, content, isRequired } of all.reverse()) {
    const own = member(text(JSON.stringify(name)), content);
    const next = behind;
    const rest = reference(() => next);
    const start = sequence(own, rest, space);
    first = isRequired ? start : choice(start, first);
    behind = isRequired ? sequence(separated(own), rest) : choice(sequence(separated(own), rest), rest);
  }
  return sequence(text("{"), space, first, text("}"));
}

/** A name as a part of a JSON pointer. */
function pointerPart(name: string): string {
  return name.replaceAll("~", "~0").replaceAll("/", "~1");
}
