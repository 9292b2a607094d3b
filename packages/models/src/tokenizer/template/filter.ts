import { item } from "./attributes.js";
import { printed } from "./print.js";
import { type Charge, type Given, isText, type Value } from "./values.js";

/** What filters know of the rendering. */
export interface Context {
  readonly charge: Charge;
  filter(name: string, value: Value, given: Given): Value;
  test(name: string, value: Value, args: readonly Value[]): boolean;
}

/** A filter: its parameters after the value by name, "*" where it takes any. */
export interface Filter {
  readonly parameters: readonly string[];
  readonly run: (value: Value, args: readonly (Value | undefined)[], context: Context, given: Given) => Value;
}

export const filter = (parameters: string, run: Filter["run"]): Filter => ({ parameters: parameters.split(" ").filter(Boolean), run });

/** A value at a path such as "function.name". */
export function atPath(value: Value, path: Value, charge: Charge): Value {
  const parts: readonly Value[] = isText(path)
    ? printed(path, charge)
        .split(".")
        .map((part) => (/^\d+$/.test(part) ? Number(part) : part))
    : [path];
  return parts.reduce((found, part) => item(found, part, charge), value);
}
