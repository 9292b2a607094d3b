import { binary } from "./arithmetic.js";
import { contains, isEqual, isIterable, isLess, lengthOf } from "./compare.js";
import { filters } from "./filters.js";
import { printed } from "./print.js";
import { textMethods } from "./text-methods.js";
import {
  Callable,
  type Charge,
  Dict,
  Float,
  isInt,
  isText,
  Markup,
  Namespace,
  Stream,
  TemplateError,
  Undefined,
  type Value,
  View,
} from "./values.js";

/** `value is name(args)`. */
export type Test = (value: Value, args: readonly Value[], charge: Charge) => boolean;

const only = (value: Value | undefined): Value => {
  if (value === undefined) throw new TemplateError("the test takes an argument");
  return value;
};
const remainder = (value: Value, by: Value, charge: Charge): Value => binary("%", value, by, charge);
const lessOrEqual: Test = (value, [other], charge) => isLess(value, only(other), charge) || isEqual(value, only(other), charge);
const equal: Test = (value, [other], charge) => isEqual(value, only(other), charge);
const unequal: Test = (value, [other], charge) => !isEqual(value, only(other), charge);
const less: Test = (value, [other], charge) => isLess(value, only(other), charge);
const greater: Test = (value, [other], charge) => isLess(only(other), value, charge);
const greaterOrEqual: Test = (value, [other], charge) => lessOrEqual(only(other), [value], charge);
const textTest =
  (name: "islower" | "isupper"): Test =>
  (value, _, charge) =>
    textMethods.get(name)?.run(printed(value, charge), [], charge) === true;

/** Jinja's tests. */
export const tests: ReadonlyMap<string, Test> = new Map<string, Test>(
  Object.entries({
    boolean: (value) => typeof value === "boolean",
    // What has no value can be called, and fails then.
    callable: (value) => value instanceof Callable || value instanceof Undefined,
    defined: (value) => !(value instanceof Undefined),
    divisibleby: (value, [by], charge) => isEqual(remainder(value, only(by), charge), 0, charge),
    escaped: (value) => value instanceof Markup,
    even: (value, _, charge) => isEqual(remainder(value, 2, charge), 0, charge),
    false: (value) => value === false,
    filter: (value) => typeof value === "string" && filters.has(value),
    float: (value) => value instanceof Float,
    in: (value, [container], charge) => contains(only(container), value, charge),
    integer: (value) => isInt(value) && typeof value !== "boolean",
    iterable: (value) => isIterable(value),
    lower: textTest("islower"),
    mapping: (value) => value instanceof Dict,
    none: (value) => value === null,
    number: (value) => isInt(value) || value instanceof Float,
    odd: (value, _, charge) => isEqual(remainder(value, 2, charge), 1, charge),
    sameas: (value, [other]) => value === other,
    sequence: (value) => !(value instanceof View || value instanceof Stream || value instanceof Namespace) && hasLength(value),
    string: (value) => isText(value),
    test: (value) => typeof value === "string" && tests.has(value),
    true: (value) => value === true,
    undefined: (value) => value instanceof Undefined,
    upper: textTest("isupper"),
    "==": equal,
    eq: equal,
    equalto: equal,
    "!=": unequal,
    ne: unequal,
    ">": greater,
    gt: greater,
    greaterthan: greater,
    ">=": greaterOrEqual,
    ge: greaterOrEqual,
    "<": less,
    lt: less,
    lessthan: less,
    "<=": lessOrEqual,
    le: lessOrEqual,
  } satisfies Readonly<Record<string, Test>>),
);

function hasLength(value: Value): boolean {
  try {
    lengthOf(value);
    return true;
  } catch (error) {
    if (error instanceof TemplateError) return false;
    throw error;
  }
}
