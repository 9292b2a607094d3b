import { fieldsOf, JsonNumber } from "../../lossless.js";
import { Dict, Float, TemplateError, type Value, wholeNumber } from "./values.js";

/** Objects and lists within one another. */
const deepest = 900;

/** A template's value of JSON's: whole numbers are ints, others floats. Throws TemplateError for what JSON cannot hold. */
export function fromJson(value: unknown, depth = 0): Value {
  if (depth > deepest) throw new TemplateError(`a value is more than ${deepest} levels deep`);
  if (value === null || value === undefined) return null;
  if (typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "number")
    return Number.isSafeInteger(value) ? value + 0 : Number.isInteger(value) ? wholeNumber(BigInt(value)) : new Float(value);
  if (typeof value === "bigint") return wholeNumber(value);
  if (value instanceof JsonNumber) return /[.eE]/.test(value.text) ? new Float(Number(value.text)) : wholeNumber(BigInt(value.text));
  if (Array.isArray(value)) return value.map((item: unknown) => fromJson(item, depth + 1));
  if (typeof value !== "object") throw new TemplateError(`a ${typeof value} is not JSON`);
  // A field that JavaScript has as undefined is one that JSON does not have.
  return new Dict(fieldsOf(value).flatMap(([name, item]) => (item === undefined ? [] : [[name, fromJson(item, depth + 1)] as const])));
}
