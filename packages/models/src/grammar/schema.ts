import { shown } from "../schema.js";
import { arrayOf, objectOf } from "./collections.js";
import { SchemaError } from "./error.js";
import { choice, type Expression, oneOf, reference, satisfiable, sequence, text } from "./expression.js";
import { formats } from "./formats.js";
import { literal, number, space, string, value } from "./json.js";
import { countIn, keywords, listIn, numberIn, numeric, type Place, type Schema, typesBy, typesOf } from "./keywords.js";
import { checkDisjoint } from "./one-of.js";
import { type Bounds, integerWithin, numberWithin } from "./ranges.js";

/** Keywords that say nothing about what a value may be. */
const annotations: ReadonlySet<string> = new Set([
  "$schema",
  "$id",
  "$comment",
  "$defs",
  "definitions",
  "title",
  "description",
  "default",
  "examples",
  "deprecated",
  "readOnly",
  "writeOnly",
]);

/** Keywords that stand alone, beside annotations. */
const alone = ["$ref", "anyOf", "oneOf", "allOf", "enum", "const"] as const;

/**
 * What JSON texts a schema takes, of JSON Schema 2020-12: type, properties, required, additionalProperties, items, prefixItems, minItems,
 * maxItems, minLength, maxLength, format (date, time, date-time, uuid), minimum, maximum and their exclusive forms (of numbers that are not
 * integers: whole ones), enum, const, anyOf, oneOf of which no two take the same value, allOf of one, and $ref within the schema. All texts
 * that fit are valid, and some valid ones do not fit: properties come in the schema's order, and others than the schema's alone where
 * `additionalProperties` says so. Throws SchemaError for any other keyword, and where no value is valid.
 */
export function grammarOf(schema: unknown): Expression {
  checkLevels(schema);
  const made = new Map<string, Expression>();
  const waiting: { readonly target: unknown; readonly path: string }[] = [];
  const resolve = (pointer: string, path: string): unknown => resolved(schema, pointer, path);
  // What is referred to is converted later: it may refer to itself.
  const referred = (pointer: string, path: string): Expression => {
    const place = `#${decoded(pointer)}`;
    if (!made.has(place)) {
      waiting.push({ target: resolve(pointer, path), path: place });
      made.set(place, choice());
    }
    return reference(() => made.get(place) ?? choice());
  };
  const convert = (content: unknown, path: string): Expression => converted(content, { path, convert, resolve }, referred);
  const root = convert(schema, "#");
  for (let next = waiting.pop(); next; next = waiting.pop()) made.set(next.path, convert(next.target, next.path));
  if (!satisfiable(root).has(root))
    throw new SchemaError("#", "takes no value at all", "Look for what contradicts itself, or holds itself without end.");
  // A completion begins with the space behind its prompt, for many.
  return sequence(space, root);
}

/** Throws SchemaError where lists and objects lie within one another deeper than functions should call themselves. */
function checkLevels(schema: unknown): void {
  let level: unknown[] = [schema];
  for (let levels = 0; level.length > 0; levels++) {
    if (levels > 200) throw new SchemaError("#", "has more than 200 levels", 'Make it flatter, with "$defs".');
    level = level.flatMap((each) => (typeof each === "object" && each !== null ? Object.values(each) : []));
  }
}

function converted(content: unknown, place: Place, referred: (pointer: string, path: string) => Expression): Expression {
  const { path, convert } = place;
  if (content === true) return value;
  if (content === false) return choice();
  if (typeof content !== "object" || content === null || Array.isArray(content))
    throw new SchemaError(path, `is ${shown(content)}, not an object of keywords`, "Write a JSON schema.");
  const schema = content as Schema;
  const used = checkKeywords(schema, path);
  switch (used) {
    case "$ref":
      if (typeof schema[used] !== "string")
        throw new SchemaError(path, `has ${shown(schema[used])} as "$ref", not a text`, "Write #/$defs/NAME.");
      return referred(schema[used], path);
    case "enum":
    case "const": {
      const values = used === "const" ? [schema["const"]] : listIn(schema, "enum", path);
      const types = typesOf(schema, path);
      const fitting = values.filter((each) => types === null || types.some((type) => isOf(each, type)));
      const isFlat = (each: unknown): boolean => typeof each !== "object" || each === null;
      const flat = fitting.filter(isFlat).map((each) => JSON.stringify(each));
      const others = fitting.filter((each) => !isFlat(each)).map(literal);
      return choice(...(flat.length > 0 ? [oneOf(flat)] : []), ...others);
    }
    case "anyOf":
    case "oneOf":
    case "allOf": {
      const options = listIn(schema, used, path);
      if (used === "allOf" && options.length !== 1)
        throw new SchemaError(
          path,
          `has "allOf" of ${options.length} schemas, of which only one is taken`,
          "Write what they say together as one schema.",
        );
      if (used === "oneOf") checkDisjoint(options, place);
      return choice(...options.map((option, i) => convert(option, `${path}/${used}/${i}`)));
    }
    case null:
      return typed(schema, place);
  }
}

/** The keyword that stands alone, if there is one. Throws SchemaError for keywords that are unknown, or say nothing beside it. */
function checkKeywords(schema: Schema, path: string): (typeof alone)[number] | null {
  const names = Object.keys(schema).filter((name) => !annotations.has(name));
  const known = new Set(["type", ...alone, ...Object.values(keywords).flat()]);
  const unknown = names.filter((name) => !known.has(name));
  if (unknown.length > 0)
    throw new SchemaError(
      path,
      `has ${unknown.map((name) => JSON.stringify(name)).join(", ")}, which answers cannot be held to here`,
      "Leave it out, and check the answers for it.",
    );
  const [used, ...more] = alone.filter((name) => names.includes(name));
  if (used === undefined) return null;
  const isFilter = (name: string): boolean => name === "type" && (used === "enum" || used === "const");
  const beside = [...more, ...names.filter((name) => !(alone as readonly string[]).includes(name) && !isFilter(name))];
  if (beside.length > 0)
    throw new SchemaError(
      path,
      `has ${JSON.stringify(beside[0])} beside ${JSON.stringify(used)}`,
      "Write what they say together as one schema.",
    );
  return used;
}

function isOf(each: unknown, type: string): boolean {
  switch (type) {
    case "null":
      return each === null;
    case "array":
      return Array.isArray(each);
    case "object":
      return typeof each === "object" && each !== null && !Array.isArray(each);
    case "integer":
      return Number.isInteger(each);
    default:
      return typeof each === type;
  }
}

function typed(schema: Schema, place: Place): Expression {
  const types = typesBy(schema, place.path);
  return types === null ? value : choice(...types.map((type) => ofType(type, schema, place)));
}

function ofType(type: string, schema: Schema, place: Place): Expression {
  switch (type) {
    case "object":
      return objectOf(schema, place);
    case "array":
      return arrayOf(schema, place);
    case "string":
      return stringOf(schema, place.path);
    case "integer":
    case "number":
      return numberOf(type, schema, place.path);
    case "boolean":
      return choice(text("true"), text("false"));
    default:
      return text("null");
  }
}

function stringOf(schema: Schema, path: string): Expression {
  const min = countIn(schema, "minLength", path);
  const max = countIn(schema, "maxLength", path);
  const { format } = schema;
  if (format === undefined) return string(min ?? 0, max ?? Number.POSITIVE_INFINITY);
  const form = Object.hasOwn(formats, String(format)) ? formats[String(format)] : undefined;
  if (!form)
    throw new SchemaError(
      path,
      `has ${shown(format)} as "format", which answers cannot be held to here`,
      `Use ${Object.keys(formats).join(", ")}, or leave it out.`,
    );
  if (min !== null || max !== null) throw new SchemaError(path, 'has a length beside "format"', "Leave it out: the format has its own.");
  return sequence(text('"'), form, text('"'));
}

function numberOf(type: "integer" | "number", schema: Schema, path: string): Expression {
  const bounds = boundsOf(schema, path);
  if (type === "integer") {
    const whole = {
      min: Number.isInteger(bounds.min) ? bounds.min : Math.ceil(bounds.min),
      max: Number.isInteger(bounds.max) ? bounds.max : Math.floor(bounds.max),
      isMinOpen: bounds.isMinOpen && Number.isInteger(bounds.min),
      isMaxOpen: bounds.isMaxOpen && Number.isInteger(bounds.max),
    };
    return integerWithin(whole);
  }
  if (!Number.isFinite(bounds.min) && !Number.isFinite(bounds.max)) return number;
  for (const bound of [bounds.min, bounds.max])
    if (Number.isFinite(bound) && !Number.isInteger(bound))
      throw new SchemaError(path, `has ${bound} as a bound of numbers, and only whole ones can be held to here`, "Use a whole number.");
  return numberWithin(bounds);
}

function boundsOf(schema: Schema, path: string): Bounds {
  const [minimum, maximum, above, below] = numeric.map((name) => numberIn(schema, name, path));
  const [min, max] = [minimum ?? Number.NEGATIVE_INFINITY, maximum ?? Number.POSITIVE_INFINITY];
  const isMinOpen = above !== null && above !== undefined && above >= min;
  const isMaxOpen = below !== null && below !== undefined && below <= max;
  return { min: isMinOpen ? above : min, max: isMaxOpen ? below : max, isMinOpen, isMaxOpen };
}

function decoded(pointer: string): string {
  try {
    return decodeURIComponent(pointer.slice(1));
  } catch {
    return pointer.slice(1);
  }
}

/** What a reference within the schema names. */
function resolved(root: unknown, pointer: string, path: string): unknown {
  const missing = (): SchemaError =>
    new SchemaError(
      path,
      `has ${shown(pointer)} as "$ref", which is nothing of this schema`,
      "Write # or #/$defs/NAME, and have it there.",
    );
  if (pointer !== "#" && !pointer.startsWith("#/")) throw missing();
  let at = root;
  for (const part of decoded(pointer).split("/").slice(1)) {
    const name = part.replaceAll("~1", "/").replaceAll("~0", "~");
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, name)) throw missing();
    at = (at as Record<string, unknown>)[name];
  }
  return at;
}

/** Throws SchemaError where answers cannot be held to a schema, before a model is loaded for it. */
export function checkSchema(schema: unknown): void {
  grammarOf(schema);
}
