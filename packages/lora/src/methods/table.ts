import { dora } from "./dora.js";
import { houlsby } from "./houlsby.js";
import { lora } from "./lora.js";
import type { Method } from "./method.js";
import { parallel } from "./parallel.js";
import { pfeiffer } from "./pfeiffer.js";
import { prefix } from "./prefix.js";
import { prompt } from "./prompt.js";
import { ptuning } from "./ptuning.js";
import { ptuningV2 } from "./ptuning-v2.js";

/** Every adapter method, one line each. A configuration is read by the first that recognises it. */
export const methods: {
  readonly lora: typeof lora;
  readonly dora: typeof dora;
  readonly prefix: typeof prefix;
  readonly prompt: typeof prompt;
  readonly ptuning: typeof ptuning;
  readonly "ptuning-v2": typeof ptuningV2;
  readonly houlsby: typeof houlsby;
  readonly pfeiffer: typeof pfeiffer;
  readonly parallel: typeof parallel;
} = {
  lora,
  dora,
  prefix,
  prompt,
  ptuning,
  "ptuning-v2": ptuningV2,
  houlsby,
  pfeiffer,
  parallel,
};

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
