import * as all from "./all.js";
import type { Method } from "./method.js";

/** Every adapter method by name. A configuration is read by the one that recognises it. */
export const methods: typeof all = all;

export type MethodName = keyof typeof methods;

/** The options of each method. */
export type OptionsOf<Name extends MethodName> = ReturnType<(typeof methods)[Name]["options"]>;

/** A method whose options and places are its own business: what it makes, it also takes. */
export type AnyMethod = Method<unknown, unknown>;

/** The method of a name, or undefined. */
export function methodNamed(name: string): AnyMethod | undefined {
  // Each method is handed only options and places that it made itself.
  return Object.hasOwn(methods, name) ? (methods[name as MethodName] as unknown as AnyMethod) : undefined;
}
