import { SchemaError } from "./error.js";
import { type Place, type Schema, typesBy } from "./keywords.js";

/** Throws SchemaError where it is not plain that no value fits two of the schemas: by their types, their values, or those of a required property. */
export function checkDisjoint(options: readonly unknown[], place: Place): void {
  const known = options.map((option) => followed(option, place));
  for (const [i, one] of known.entries())
    for (const [j, other] of known.slice(0, i).entries())
      if (!areDisjoint(one, other, place))
        throw new SchemaError(
          place.path,
          `has "oneOf", and values may fit both number ${j + 1} and number ${i + 1} of it`,
          'Use "anyOf", or give each a required property with a "const" of its own.',
        );
}

/** A schema, or what it refers to. */
function followed(schema: unknown, { path, resolve }: Place): unknown {
  let at = schema;
  for (let steps = 0; steps < 100; steps++) {
    const to = typeof at === "object" && at !== null ? (at as Schema)["$ref"] : undefined;
    if (typeof to !== "string") break;
    at = resolve(to, path);
  }
  return at;
}

/** Whether it is plain; `levels` ends it where schemas hold themselves. */
function areDisjoint(one: unknown, other: unknown, place: Place, levels = 10): boolean {
  if (levels === 0) return false;
  if (one === false || other === false) return true;
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) return false;
  const [a, b] = [one as Schema, other as Schema];
  const [types, others] = [typesIn(a, place), typesIn(b, place)];
  if (types && others && !types.some((type) => others.includes(type))) return true;
  const [values, otherValues] = [valuesIn(a), valuesIn(b)];
  if (values && otherValues) return !values.some((each) => otherValues.includes(each));
  if (types?.join() !== "object" || others?.join() !== "object") return false;
  const [properties, otherProperties] = [objectIn(a, "properties"), objectIn(b, "properties")];
  const isRequired = (schema: Schema, name: string): boolean => Array.isArray(schema["required"]) && schema["required"].includes(name);
  return Object.keys(properties).some((name) => {
    if (!isRequired(a, name) || !isRequired(b, name)) return false;
    return areDisjoint(followed(properties[name], place), followed(otherProperties[name], place), place, levels - 1);
  });
}

/** The types that a schema takes, integers as numbers; null where any. */
function typesIn(schema: Schema, place: Place): readonly string[] | null {
  const values = Object.hasOwn(schema, "const") ? [schema["const"]] : schema["enum"];
  const types = Array.isArray(values)
    ? values.map((each) => (each === null ? "null" : Array.isArray(each) ? "array" : typeof each))
    : ["anyOf", "oneOf", "allOf"].some((name) => schema[name] !== undefined)
      ? null
      : typesBy(schema, place.path);
  return types && [...new Set(types.map((type) => (type === "integer" ? "number" : type)))];
}

/** The values that a schema names, as JSON; null where it names none. */
function valuesIn(schema: Schema): readonly string[] | null {
  if (Object.hasOwn(schema, "const")) return [JSON.stringify(schema["const"])];
  return Array.isArray(schema["enum"]) ? schema["enum"].map((each) => JSON.stringify(each)) : null;
}

function objectIn(schema: Schema, name: string): Schema {
  const found = schema[name];
  return typeof found === "object" && found !== null ? (found as Schema) : {};
}
